package sample

import android.app.Activity
import android.content.Context
import android.os.Bundle
import android.text.Editable
import android.text.TextWatcher
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.TextView
import java.io.File
import java.util.concurrent.Executors
import trunkline.Classified
import trunkline.Entities
import trunkline.Model
import trunkline.OnnxGraphs
import trunkline.Prediction
import trunkline.Several

/** Shows what every task of the bundle in `assets/bundle` says of the text that is typed. */
class MainActivity : Activity() {
    private val worker = Executors.newSingleThreadExecutor()
    private var model: Model? = null
    @Volatile private var latest = ""

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        val input = EditText(this).apply { hint = "Type a message" }
        val output = TextView(this)
        setContentView(LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            addView(input)
            addView(output)
        })
        worker.execute { model = open(this) }
        input.addTextChangedListener(object : TextWatcher {
            override fun afterTextChanged(text: Editable) {
                latest = text.toString()
                worker.execute {
                    val asked = latest
                    val said = model?.predict(asked)?.entries?.joinToString("\n") { (task, found) -> "$task: ${shown(found)}" }
                    runOnUiThread { if (asked == latest) output.text = said }
                }
            }

            override fun beforeTextChanged(text: CharSequence, start: Int, count: Int, after: Int) = Unit

            override fun onTextChanged(text: CharSequence, start: Int, before: Int, count: Int) = Unit
        })
    }

    override fun onDestroy() {
        worker.execute { model?.close() }
        worker.shutdown()
        super.onDestroy()
    }

    private fun shown(found: Prediction): String = when (found) {
        is Classified -> "${found.label ?: "none of these"} (${"%.2f".format(found.score)})"
        is Several -> found.labels.joinToString()
        is Entities -> found.entities.joinToString { "${it.text}: ${it.label} (${"%.2f".format(it.score)})" }
    }

    /** ONNX Runtime maps files, so that the bundle is copied out of the package once for each version of the app. */
    private fun open(context: Context): Model {
        val folder = File(context.filesDir, "bundle-" + context.packageManager.getPackageInfo(context.packageName, 0).lastUpdateTime)
        if (!File(folder, "manifest.json").isFile) copy(context, "bundle", folder)
        return Model.load(folder) { trunk, branch -> OnnxGraphs(trunk, branch) }
    }

    private fun copy(context: Context, asset: String, place: File) {
        val children = context.assets.list(asset).orEmpty()
        if (children.isEmpty()) {
            place.parentFile?.mkdirs()
            context.assets.open(asset).use { from -> place.outputStream().use { from.copyTo(it) } }
        }
        // The manifest comes last: where it is, the rest is there.
        children.sortedBy { it == "manifest.json" }.forEach { copy(context, "$asset/$it", File(place, it)) }
    }
}
