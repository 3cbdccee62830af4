package trunkline

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtSession
import java.io.BufferedInputStream
import java.io.BufferedOutputStream
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File
import java.net.InetAddress
import java.net.Socket

/** Does what the orders ask for, and writes what came of it: `Check PORT ORDERS ANSWERS`. */
fun main(arguments: Array<String>) {
    val (port, orders, answers) = arguments
    val socket = Socket(InetAddress.getLoopbackAddress(), port.toInt()).apply { tcpNoDelay = true }
    OrtSession.from = DataInputStream(BufferedInputStream(socket.getInputStream()))
    OrtSession.to = DataOutputStream(BufferedOutputStream(socket.getOutputStream()))
    val found = Node(Json.read(File(orders).readText(), orders), orders).list().map { order ->
        try {
            when (order["does"].text()) {
                "read" -> read(order)
                "predict" -> predict(order)
                else -> open(order).use { mapOf("tasks" to it.tasks) }
            }
        } catch (error: TrunklineError) {
            mapOf("error" to error.message)
        }
    }
    File(answers).writeText(json(found))
    socket.close()
}

private fun open(order: Node): Model {
    val model = Model.load(File(order["bundle"].text())) { trunk, branch -> OnnxGraphs(trunk, branch) }
    if (order["add"].isThere) model.add("added", File(order["add"].text()).readBytes())
    return model
}

private fun read(order: Node): Any {
    val tokenizer = WordPiece(File(order["tokenizer"].text()).readText())
    return order["texts"].list().map {
        val read = Units.read(it.text(), tokenizer, order["maxLength"].size(), order["overlap"].size())
        fun pairs(borders: List<Border>) = borders.map { (start, end) -> listOf(start, end) }
        mapOf(
            "starts" to read.starts.toList(),
            "ends" to read.ends.toList(),
            "ids" to read.ids.toList(),
            "sizes" to read.sizes.toList(),
            "place" to read.place.toList(),
            "words" to pairs(read.borders("words")),
            "pieces" to pairs(read.borders("pieces"))
        )
    }
}

private fun predict(order: Node): Any {
    val model = open(order)
    val found = order["texts"].list().map { text ->
        val tasks = if (order["tasks"].isThere) order["tasks"].list().map { it.text() } else null
        model.predict(text.text(), tasks, if (order["least"].isThere) order["least"].number() else null).mapValues { plain(it.value) }
    }
    val open = OnnxTensor.open
    model.close()
    return mapOf("found" to found, "left" to open, "closed" to OnnxTensor.open)
}

private fun plain(prediction: Prediction): Any = when (prediction) {
    is Classified -> mapOf("label" to prediction.label, "score" to prediction.score, "probabilities" to prediction.probabilities)
    is Several -> mapOf("labels" to prediction.labels, "probabilities" to prediction.probabilities)
    is Entities -> prediction.entities.map {
        mapOf("start" to it.start, "end" to it.end, "text" to it.text, "label" to it.label, "score" to it.score)
    }
}

private fun json(value: Any?): String = when (value) {
    is Map<*, *> -> value.entries.joinToString(",", "{", "}") { "${json(it.key)}:${json(it.value)}" }
    is List<*> -> value.joinToString(",", "[", "]") { json(it) }
    is String -> value.map { if (it in ' '..'~' && it != '"' && it != '\\') it.toString() else "\\u%04x".format(it.toInt()) }.joinToString("", "\"", "\"")
    else -> value.toString()
}
