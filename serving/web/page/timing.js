// Time by a clock that is coarse: browsers round it to 0.1 ms, some to 1 ms or more.

/** The step of this browser's clock in milliseconds, as seen now. */
export function clockStep() {
  const steps = Array.from({ length: 5 }, () => {
    const start = performance.now();
    let now = start;
    while (now === start) now = performance.now();
    return now - start;
  });
  return Math.min(...steps);
}

/**
 * The mean time of `call` in milliseconds: of as many calls as fit into `milliseconds`, at least one, at most `calls`.
 * `on` says whether it is still wanted.
 */
export async function meanTime(call, { calls = 100, milliseconds = 60, on = () => true } = {}) {
  const start = performance.now();
  let done = 0;
  do {
    await call();
    done += 1;
  } while (done < calls && performance.now() - start < milliseconds && on());
  return { milliseconds: (performance.now() - start) / done, calls: done };
}

/** Milliseconds in words, with three digits. */
export const inMilliseconds = (value) => `${value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ms`;

/** The value below which `share` of the numbers lie. */
export function quantile(numbers, share) {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}
