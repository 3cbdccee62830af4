package trunkline

import java.io.Closeable

/**
 * The two graphs of a bundle, `trunk` and `branch-required`, on whatever runs ONNX files.
 *
 * This is all that the library asks of a runtime; an implementation closes the tensors that it makes.
 */
interface Graphs : Closeable {
    /** [rows, width] token ids and a mask (1 for tokens) -> `hidden`, [rows, width, hidden]. */
    fun trunk(ids: LongArray, mask: FloatArray, rows: Int, width: Int): Tensor

    /** `hidden`, `mask`, `pool`, and the inputs of an adapter and a head -> `logits`, [rows, units, labels]. */
    fun branch(inputs: Map<String, Tensor>): Tensor
}
