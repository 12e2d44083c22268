// The code of a model card in JavaScript, which exports `inputNames` and `run(feeds)`.

export function codeOf(markdown) {
  const found = /^(`{3,})js\n([\s\S]*?)^\1$/m.exec(markdown);
  if (!found) throw new Error("README.md has no JavaScript");
  return found[2];
}
