"""What runs on a target: jobs that time, trace and run ONNX models, each model in a process of its own.

Needs Python 3.11, numpy and the target's runtime, and nothing else of ours: these files are packed and copied
to the machine that is measured (`targets/bundle.py`). They only collect; `benchmark/stats.py` judges.
`python compress/runner job.json result.json`, or that of the packed file, does the job of its key "do":

time:    see `collect.py`. The job is called its spec, its result samples.
profile, limits, outputs: see `jobs.py`.

Every job says with what its models run; what is left out is the runtime's default:
    "runtime": a file here, onnxruntime without; "threads": int; "provider": an execution provider of
    onnxruntime; "settings": what else the runtime is told, name -> value; "command": [word, ...] that start a
    worker which runs no Python, in place of ours; it answers the same requests (`worker.py`).
"""
