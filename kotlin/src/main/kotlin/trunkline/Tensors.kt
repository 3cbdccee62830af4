package trunkline

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Numbers with their shape, row by row. */
class Tensor(val dims: IntArray, val data: FloatArray)

/** A safetensors file of float16 and float32 tensors, read into float32 and checked. */
internal class Safetensors(content: ByteArray, where: String) {
    val tensors: Map<String, Tensor>
    val metadata: Map<String, String>

    init {
        val buffer = ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN)
        val size = if (content.size < 8) -1L else buffer.getLong(0)
        if (size < 0 || size > minOf(content.size - 8, MOST_HEADER)) {
            throw TrunklineError("$where: a header of $size bytes in a file of ${content.size}", WANTED, TODO)
        }
        val begin = 8 + size.toInt()
        val header = Node(Json.read(String(content, 8, size.toInt(), Charsets.UTF_8), where), where).entries()
        val entries = header.filterKeys { it != "__metadata__" }
        if (entries.size > MOST_TENSORS) throw TrunklineError("$where has ${entries.size} tensors", "at most $MOST_TENSORS", TODO)
        metadata = header["__metadata__"]?.entries()?.mapValues { it.value.text() } ?: mapOf()
        var used = 0L
        tensors = entries.mapValues { (name, entry) ->
            val (start, end) = entry["data_offsets"].list().map { it.size() }
            used += end - start
            read(name.take(60), entry, start, end, buffer, begin, where)
        }
        if (used != (content.size - begin).toLong()) {
            throw TrunklineError("$where: ${content.size - begin - used} bytes belong to no tensor", WANTED, TODO)
        }
    }

    private fun read(name: String, entry: Node, start: Int, end: Int, buffer: ByteBuffer, begin: Int, where: String): Tensor {
        val size = SIZES[entry["dtype"].text()] ?: throw TrunklineError("$where: $name is of ${entry["dtype"].text()}", WANTED, TODO)
        val dims = entry["shape"].list().map { it.size() }
        var count = 1L
        for (side in dims) count = if (count > Int.MAX_VALUE) count else count * side
        if (dims.size > 8 || end > buffer.capacity() - begin || end - start.toLong() != count * size) {
            throw TrunklineError("$where: $name does not fit the file", WANTED, TODO)
        }
        val data = FloatArray(count.toInt()) { n ->
            val place = begin + start + n * size
            if (size == 2) ofHalf(buffer.getShort(place).toInt()) else buffer.getFloat(place)
        }
        if (data.any { it.isNaN() || it.isInfinite() }) {
            throw TrunklineError("$where: $name has values that are not finite", WANTED, TODO)
        }
        return Tensor(dims.toIntArray(), data)
    }

    private companion object {
        const val MOST_HEADER = 4 shl 20
        const val MOST_TENSORS = 20_000
        const val WANTED = "a complete safetensors file of float16 or float32 tensors"
        const val TODO = "Fetch or make the file again"
        val SIZES = mapOf("F16" to 2, "F32" to 4)

        fun ofHalf(bits: Int): Float {
            val exponent = bits shr 10 and 31
            val fraction = bits and 1023
            val size = when (exponent) {
                31 -> if (fraction == 0) Float.POSITIVE_INFINITY else Float.NaN
                0 -> Math.scalb(fraction.toFloat(), -24)
                else -> Math.scalb(1024f + fraction, exponent - 25)
            }
            return if (bits and 0x8000 == 0) size else -size
        }
    }
}
