// Runs the page's model. Base64 carries an exact array an order of magnitude faster than a JSON list.
async ([inputs, count]) => {
  const kinds = { float32: Float32Array, int32: Int32Array };
  const text = (values, kind) => {
    const raw = new Uint8Array(kind.from(values).buffer);
    let binary = "";
    for (let i = 0; i < raw.length; i += 8192) binary += String.fromCharCode(...raw.subarray(i, i + 8192));
    return btoa(binary);
  };
  const values = Object.entries(inputs).map(([name, [dtype, encoded]]) => {
    const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
    return [name, new kinds[dtype](bytes.buffer)];
  });
  const { outputs, version } = await window.tandem.predict(Object.fromEntries(values), count);
  const encoded = Object.entries(outputs).map(([name, rows]) => [name, text(rows.flat(Infinity), Float32Array)]);
  return [Object.fromEntries(encoded), version];
}
