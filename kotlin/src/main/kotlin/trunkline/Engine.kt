package trunkline

/** One pass above the fork: the inputs of an adapter and of the heads of all tasks that share it. */
internal class Branch(val inputs: Map<String, Tensor>, val width: Int)

/**
 * A text through the trunk once, then through a branch for each adapter.
 *
 * Windows go one by one: on a phone eight in a batch take as long as eight runs, and need no padding.
 */
internal class Engine(private val graphs: Graphs) {
    /** For each branch [units, labels of its tasks] of a text, from branches with the units that each wants. */
    fun run(read: ReadText, wanted: List<Pair<Branch, UnitTokens>>): List<FloatArray> {
        val found = wanted.map { (branch, units) -> FloatArray(units.count * branch.width) }
        val shares = wanted.map { (_, units) -> Shares(units) }
        var begin = 0
        for (size in read.sizes) {
            val mask = FloatArray(size) { 1f }
            val hidden = finite(graphs.trunk(LongArray(size) { read.ids[begin + it].toLong() }, mask, 1, size), "hidden")
            val states = mapOf("hidden" to hidden, "mask" to Tensor(intArrayOf(1, size), mask))
            wanted.forEachIndexed { number, (branch, _) ->
                val units = shares[number].within(begin, begin + size)
                if (units.isNotEmpty()) {
                    val pool = shares[number].pool(units, begin, size)
                    val said = finite(graphs.branch(states + branch.inputs + ("pool" to pool)), "logits")
                    add(said.data, units, found[number], branch.width)
                }
            }
            begin += size
        }
        return found
    }

    private fun add(said: FloatArray, units: IntArray, found: FloatArray, width: Int) {
        units.forEachIndexed { row, unit -> for (n in 0 until width) found[unit * width + n] += said[row * width + n] }
    }

    private fun finite(tensor: Tensor, what: String): Tensor {
        if (tensor.data.all { !it.isNaN() && !it.isInfinite() }) return tensor
        throw TrunklineError("$what has values that are not finite", "finite weights", "Fetch the bundle again")
    }

    /** Which shares of which tokens make up the units of a text. */
    private class Shares(private val units: UnitTokens) {
        private val parts = IntArray(units.count).also { parts -> units.unit.forEach { parts[it]++ } }

        /** Units with a token between two places, in order. */
        fun within(begin: Int, end: Int): IntArray =
            units.token.indices.filter { units.token[it] in begin until end }.map { units.unit[it] }.distinct().sorted().toIntArray()

        fun pool(own: IntArray, begin: Int, width: Int): Tensor {
            val rows = own.withIndex().associate { (row, unit) -> unit to row }
            val data = FloatArray(own.size * width)
            units.token.forEachIndexed { pair, token ->
                val unit = units.unit[pair]
                if (token in begin until begin + width) data[rows.getValue(unit) * width + token - begin] = 1f / parts[unit]
            }
            return Tensor(intArrayOf(1, own.size, width), data)
        }
    }
}
