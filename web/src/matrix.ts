/** Small dense matrices, row by row in float64: products, symmetric eigenvalues, and solutions of linear systems. */

export type Matrix = Float64Array;

/** [rows, inner] times [inner, columns]. */
export function product(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  rows: number,
  inner: number,
  columns: number,
): Matrix {
  const found = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let n = 0; n < inner; n++) {
      const factor = a[row * inner + n]!;
      if (factor === 0) continue;
      for (let column = 0; column < columns; column++)
        found[row * columns + column]! += factor * b[n * columns + column]!;
    }
  }
  return found;
}

/** [rows, columns] -> [columns, rows]. */
export function transposed(a: ArrayLike<number>, rows: number, columns: number): Matrix {
  const found = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) found[column * rows + row] = a[row * columns + column]!;
  }
  return found;
}

export function dot(a: Matrix, b: Matrix): number {
  let sum = 0;
  for (let n = 0; n < a.length; n++) sum += a[n]! * b[n]!;
  return sum;
}

/** Solves a symmetric positive definite system [size, size] for right sides [sides, size], by Cholesky's factors. */
export function solve(matrix: Matrix, right: Matrix, size: number): Matrix {
  const lower = new Float64Array(matrix);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column <= row; column++) {
      let sum = lower[row * size + column]!;
      for (let n = 0; n < column; n++) sum -= lower[row * size + n]! * lower[column * size + n]!;
      lower[row * size + column] =
        row === column ? Math.sqrt(Math.max(sum, 1e-300)) : sum / lower[column * size + column]!;
    }
  }
  const found = new Float64Array(right);
  for (let begin = 0; begin < found.length; begin += size) {
    for (let row = 0; row < size; row++) {
      for (let n = 0; n < row; n++) found[begin + row]! -= lower[row * size + n]! * found[begin + n]!;
      found[begin + row]! /= lower[row * size + row]!;
    }
    for (let row = size - 1; row >= 0; row--) {
      for (let n = row + 1; n < size; n++) found[begin + row]! -= lower[n * size + row]! * found[begin + n]!;
      found[begin + row]! /= lower[row * size + row]!;
    }
  }
  return found;
}

/**
 * Eigenvalues of a symmetric matrix, ascending, and eigenvectors as rows, [size, size].
 *
 * Householder reflections make it tridiagonal, implicit QL steps diagonal (Golub and Van Loan, 8.3).
 */
export function eigen(matrix: Matrix, size: number): { values: number[]; vectors: Matrix } {
  const { diagonal, beside, vectors } = tridiagonal(matrix, size);
  for (let low = 0; low < size; low++) {
    for (let steps = 0; steps < 60; steps++) {
      let high = low;
      while (
        high < size - 1 &&
        Math.abs(beside[high]!) > 1e-15 * (Math.abs(diagonal[high]!) + Math.abs(diagonal[high + 1]!))
      )
        high++;
      if (high === low) break;
      step(diagonal, beside, vectors, low, high, size);
    }
  }
  const order = Array.from(diagonal.keys()).sort((a, b) => diagonal[a]! - diagonal[b]!);
  const sorted = new Float64Array(size * size);
  order.forEach((from, to) => sorted.set(vectors.subarray(from * size, (from + 1) * size), to * size));
  return { values: order.map((n) => diagonal[n]!), vectors: sorted };
}

/** Diagonal, the numbers beside it, and the orthogonal matrix whose rows turn the tridiagonal one back. */
function tridiagonal(matrix: Matrix, size: number) {
  const a = new Float64Array(matrix);
  const vectors = new Float64Array(size * size);
  for (let n = 0; n < size; n++) vectors[n * size + n] = 1;
  for (let column = 0; column < size - 2; column++) {
    const v = new Float64Array(size);
    for (let row = column + 1; row < size; row++) v[row] = a[row * size + column]!;
    const length = Math.sqrt(dot(v, v));
    const first = v[column + 1]!;
    v[column + 1]! += first < 0 ? -length : length;
    const square = dot(v, v);
    if (square <= 1e-300) continue;
    const scale = 2 / square;
    // a := h a h and vectors := h vectors, with h = 1 - scale v v^T.
    const w = product(a, v, size, size, 1).map((value) => value * scale);
    const shift = (scale / 2) * dot(v, w);
    for (let n = column; n < size; n++) w[n]! -= shift * v[n]!;
    for (let row = column; row < size; row++) {
      for (let n = column; n < size; n++) a[row * size + n]! -= v[row]! * w[n]! + w[row]! * v[n]!;
    }
    const u = product(v, vectors, 1, size, size);
    for (let row = column + 1; row < size; row++) {
      const factor = scale * v[row]!;
      for (let n = 0; n < size; n++) vectors[row * size + n]! -= factor * u[n]!;
    }
  }
  const diagonal = Float64Array.from({ length: size }, (_, n) => a[n * size + n]!);
  const beside = Float64Array.from({ length: size }, (_, n) => (n < size - 1 ? a[(n + 1) * size + n]! : 0));
  return { diagonal, beside, vectors };
}

/** One implicit QL step with Wilkinson's shift between `low` and `high`. */
function step(d: Matrix, e: Matrix, vectors: Matrix, low: number, high: number, size: number): void {
  const half = (d[low + 1]! - d[low]!) / (2 * e[low]!);
  const root = Math.hypot(half, 1);
  let g = d[high]! - d[low]! + e[low]! / (half + (half < 0 ? -root : root));
  let [sine, cosine, shift] = [1, 1, 0];
  for (let n = high - 1; n >= low; n--) {
    const f = sine * e[n]!;
    const b = cosine * e[n]!;
    const r = Math.hypot(f, g);
    e[n + 1] = r;
    if (r === 0) {
      d[n + 1]! -= shift;
      e[high] = 0;
      return;
    }
    [sine, cosine] = [f / r, g / r];
    const h = d[n + 1]! - shift;
    const turn = (d[n]! - h) * sine + 2 * cosine * b;
    shift = sine * turn;
    d[n + 1] = h + shift;
    g = cosine * turn - b;
    for (let k = 0; k < size; k++) {
      const [upper, lower] = [vectors[n * size + k]!, vectors[(n + 1) * size + k]!];
      vectors[(n + 1) * size + k] = sine * upper + cosine * lower;
      vectors[n * size + k] = cosine * upper - sine * lower;
    }
  }
  d[low]! -= shift;
  e[low] = g;
  e[high] = 0;
}
