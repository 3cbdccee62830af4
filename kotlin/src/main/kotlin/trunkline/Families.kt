package trunkline

/** What a task says of a text. */
sealed class Prediction

/** The label of a text, null where none is sure enough; and the probability of each, highest first. */
data class Classified(val label: String?, val score: Double, val probabilities: Map<String, Double>) : Prediction()

/** Any number of labels of a text, and the probability of each, highest first. */
data class Several(val labels: List<String>, val probabilities: Map<String, Double>) : Prediction()

/** The entities of a text, in order. */
data class Entities(val entities: List<Entity>) : Prediction()

/** An entity; `text.substring(start, end)` is its text. */
data class Entity(val start: Int, val end: Int, val text: String, val label: String, val score: Double)

/** What a head says of a text: [units, labels] probabilities, and the borders of the units. */
internal class Scored(
    val probabilities: FloatArray,
    val text: Text,
    val borders: List<Border>,
    val labels: List<String>,
    val transitions: FloatArray?,
    val decisions: Decisions
)

/** What a task's file says of decisions from scores. */
internal class Decisions(val minScore: Double, val other: String?, val thresholds: Map<String, Double>)

internal interface Family {
    fun checkLabels(labels: List<String>, where: String)
    fun units(read: ReadText, borders: List<Border>): UnitTokens

    /** [units, labels] logits -> probabilities, each unit for itself. */
    fun probabilities(logits: FloatArray, labels: Int): FloatArray = Families.softmax(logits, labels)

    /** Nothing that scores below `asked`, or below what the task's file says where that is null, is said. */
    fun decode(scored: Scored, asked: Double?): Prediction
}

internal object Families {
    private val known = mapOf("classification" to Classification, "multilabel" to MultiLabel, "ner" to Ner)

    /** The family whose adapter and units a family's heads read. */
    fun branchOf(name: String): String = if (name == "multilabel") "classification" else name

    fun of(name: String): Family =
        known[name] ?: throw TrunklineError("family $name", known.keys.joinToString(" or "), "Other families are for Python")

    /** A number with at most six decimals. */
    fun rounded(value: Double): Double = Math.rint(value * 1e6) / 1e6

    /** Labels with their probabilities, highest first. */
    fun ranked(scored: Scored): Map<String, Double> =
        scored.labels.indices.sortedByDescending { scored.probabilities[it] }
            .associate { scored.labels[it] to rounded(scored.probabilities[it].toDouble()) }

    /** [units, labels] logits -> probabilities that add up to 1 in each unit. */
    fun softmax(logits: FloatArray, labels: Int): FloatArray {
        val found = FloatArray(logits.size)
        for (begin in logits.indices step labels) {
            val top = (begin until begin + labels).map { logits[it] }.max()!!
            var sum = 0f
            for (n in begin until begin + labels) {
                found[n] = Math.exp((logits[n] - top).toDouble()).toFloat()
                sum += found[n]
            }
            for (n in begin until begin + labels) found[n] /= sum
        }
        return found
    }
}

internal object Classification : Family {
    override fun checkLabels(labels: List<String>, where: String) {
        if (labels.isEmpty()) throw TrunklineError("$where has no labels", "at least one", "Fit the task again")
    }

    override fun units(read: ReadText, borders: List<Border>): UnitTokens = Units.ofText(read)

    override fun decode(scored: Scored, asked: Double?): Prediction {
        val ranked = Families.ranked(scored)
        val (label, score) = ranked.entries.first()
        val said = score >= asked ?: scored.decisions.minScore && label != scored.decisions.other
        return Classified(if (said) label else null, score, ranked)
    }
}

/** A yes or no for each label. */
internal object MultiLabel : Family {
    private const val THRESHOLD = 0.5

    override fun checkLabels(labels: List<String>, where: String) = Classification.checkLabels(labels, where)

    override fun units(read: ReadText, borders: List<Border>): UnitTokens = Units.ofText(read)

    override fun probabilities(logits: FloatArray, labels: Int): FloatArray =
        FloatArray(logits.size) { (0.5 + 0.5 * Math.tanh(0.5 * logits[it])).toFloat() }

    /** A least score that is asked for stands instead of the labels' thresholds. */
    override fun decode(scored: Scored, asked: Double?): Prediction {
        val order = scored.labels.indices.sortedByDescending { scored.probabilities[it] }
        val ranked = Families.ranked(scored)
        val said = order.map { scored.labels[it] to scored.probabilities[it] }.filter { (label, chance) ->
            val enough = asked != null || chance >= scored.decisions.thresholds[label] ?: THRESHOLD
            enough && ranked.getValue(label) >= asked ?: scored.decisions.minScore
        }
        return Several(said.map { it.first }, ranked)
    }
}

/** Words or pieces are units, entities are spans of them, decoded from BIO tags. */
internal object Ner : Family {
    private val TAG = Regex("O|[BI]-.+", RegexOption.DOT_MATCHES_ALL)

    override fun checkLabels(labels: List<String>, where: String) {
        val wrong = labels.find { !TAG.matches(it) }
        if (labels.isEmpty() || wrong != null) throw TrunklineError("$where has the label $wrong", "O, or B- or I- and a type")
    }

    override fun units(read: ReadText, borders: List<Border>): UnitTokens = Units.ofWords(read, borders)

    /** The score is the mean probability that an entity's units are of its type. */
    override fun decode(scored: Scored, asked: Double?): Prediction {
        val labels = scored.labels
        val path = bestPath(scored)
        val found = ArrayList<Entity>()
        for (first in path.indices) {
            if (!labels[path[first]].startsWith("B-")) continue
            var last = first + 1
            while (last < path.size && labels[path[last]].startsWith("I-")) last++
            val type = labels[path[first]].substring(2)
            var total = 0.0
            for (unit in first until last) {
                labels.forEachIndexed { n, other ->
                    if (other.drop(2) == type) total += scored.probabilities[unit * labels.size + n]
                }
            }
            val begin = scored.borders[first].start
            val end = scored.borders[last - 1].end
            val text = scored.text
            found.add(Entity(text.places[begin], text.places[end], text.slice(begin, end), type, Families.rounded(total / (last - first))))
        }
        val least = asked ?: scored.decisions.minScore
        return Entities(found.filter { it.score >= least })
    }

    /** Whether a tag may follow another; null: the start of the text. */
    private fun mayFollow(before: String?, tag: String): Boolean =
        !tag.startsWith("I-") || (before != null && before.drop(2) == tag.drop(2))

    /** The tags with the highest sum of log probabilities and transitions (Viterbi); of equal ones the lower tag. */
    private fun bestPath(scored: Scored): IntArray {
        val units = scored.borders.size
        val labels = scored.labels
        val size = labels.size
        val rules = DoubleArray((size + 1) * size) { n ->
            val may = mayFollow(labels.getOrNull(n / size), labels[n % size])
            if (may) (scored.transitions?.get(n) ?: 0f).toDouble() else Double.NEGATIVE_INFINITY
        }
        val best = DoubleArray(units * size) { n ->
            Math.log(maxOf(scored.probabilities[n], 1e-12f).toDouble()).toFloat().toDouble()
        }
        for (tag in 0 until if (units > 0) size else 0) best[tag] += rules[size * size + tag]
        for (unit in 1 until units) {
            for (tag in 0 until size) {
                var top = Double.NEGATIVE_INFINITY
                for (before in 0 until size) top = maxOf(top, best[(unit - 1) * size + before] + rules[before * size + tag])
                best[unit * size + tag] += top
            }
        }
        val path = IntArray(units)
        for (unit in units - 1 downTo 0) {
            var top = Double.NEGATIVE_INFINITY
            for (tag in 0 until size) {
                val value = best[unit * size + tag] + if (unit + 1 < units) rules[tag * size + path[unit + 1]] else 0.0
                if (value > top) {
                    top = value
                    path[unit] = tag
                }
            }
        }
        return path
    }
}
