import pytest, onnx, json
from collections import Counter
from compress import families
from compress.config import *
from compress.export.optimum import export, parity
from compress.quantize import quantize
ARCH=("bert","roberta","distilbert","mpnet")
@pytest.mark.parametrize("opset",[14,18])
@pytest.mark.parametrize("a",ARCH)
def test_x(checkpoints, splits_folder,splits, tmp_path,a,opset):
    if opset not in (18,) and a!="bert": return
    export(OptimumExport(fuse=True,opset=opset), checkpoints[a], splits_folder, tmp_path)
    print(a,opset,(tmp_path/"parity.json").read_text())
    b=(tmp_path/"model.onnx").read_bytes()
    i=b.find(b".py"); print("PY", b[i-60:i+30])
    if opset==18:
        e=families.load(checkpoints[a])
        for c in (Int8Static(texts=20,min_coverage=0),Int8Static(texts=20,embeddings=False,min_coverage=0)):
                d=tmp_path/f"s{c.embeddings}"; d.mkdir()
                quantize(c,["avx512_vnni"],tmp_path,checkpoints[a],splits_folder,d)
                cov=json.loads((d/"coverage.json").read_text()); print(cov)
                print("STATIC",c.embeddings,parity(e,d/"model.onnx",splits.test.texts))
                import onnxruntime as ort
                so=ort.SessionOptions(); so.optimized_model_filepath=str(d/"opt.onnx"); ort.InferenceSession(str(d/"model.onnx"),so)
                print(Counter(n.op_type for n in onnx.load(d/"opt.onnx").graph.node))
