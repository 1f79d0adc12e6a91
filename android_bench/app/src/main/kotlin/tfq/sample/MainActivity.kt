package tfq.sample

import android.graphics.Bitmap
import android.graphics.ImageDecoder
import android.net.Uri
import android.os.Bundle
import android.os.SystemClock
import android.widget.Button
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts.PickVisualMedia
import androidx.activity.result.contract.ActivityResultContracts.TakePicturePreview
import java.util.concurrent.Executors
import kotlin.math.ceil
import kotlin.math.sqrt

private const val MOST_PIXELS = 4_000_000.0 // of a photograph; a larger one is halved, or more, while it is decoded
private const val CLASSES = 3

/** A picture from the gallery or the camera, the best classes below it, and how long it took. */
class MainActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor()
    private val classifier by lazy { Classifier(this) } // used by the worker alone
    private val imageView by lazy { ImageView(this).apply { adjustViewBounds = true } }
    private val textView by lazy { TextView(this).apply { textSize = 18f } }
    private val gallery = registerForActivityResult(PickVisualMedia()) { uri -> uri?.let { show { decoded(it) } } }
    private val camera = registerForActivityResult(TakePicturePreview()) { bitmap -> bitmap?.let { show { it } } }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        val layout = LinearLayout(this).apply { orientation = LinearLayout.VERTICAL; fitsSystemWindows = true }
        layout.addView(button("Gallery") { gallery.launch(PickVisualMediaRequest(PickVisualMedia.ImageOnly)) })
        layout.addView(button("Camera") { camera.launch(null) })
        layout.addView(textView)
        layout.addView(imageView)
        setContentView(layout)
    }

    override fun onDestroy() {
        worker.execute { classifier.close() }
        worker.shutdown()
        super.onDestroy()
    }

    private fun button(label: String, action: () -> Unit) =
        Button(this).apply { text = label; setOnClickListener { action() } }

    private fun show(load: () -> Bitmap) = worker.execute {
        val shown = try {
            val bitmap = load()
            runOnUiThread { imageView.setImageBitmap(bitmap) }
            told(bitmap)
        } catch (error: Exception) { // a damaged picture, or a model that the sample does not take
            error.message ?: error.toString()
        }
        runOnUiThread { textView.text = shown }
    }

    private fun told(bitmap: Bitmap): String {
        val argb = IntArray(bitmap.width * bitmap.height)
        bitmap.getPixels(argb, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
        val picture = Picture(bitmap.width, bitmap.height, argb)
        val start = SystemClock.elapsedRealtimeNanos()
        val classes = classifier.classify(picture, CLASSES)
        val milliseconds = (SystemClock.elapsedRealtimeNanos() - start) / 1e6
        return classes.joinToString("\n") { (name, score) -> "%s  %.3f".format(name, score) } +
            "\n%.1f ms with resizing".format(milliseconds)
    }

    private fun decoded(uri: Uri): Bitmap =
        ImageDecoder.decodeBitmap(ImageDecoder.createSource(contentResolver, uri)) { decoder, info, _ ->
            decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE // whose pixels can be read
            val larger = ceil(sqrt(info.size.width.toDouble() * info.size.height / MOST_PIXELS)).toInt()
            decoder.setTargetSampleSize(maxOf(1, larger))
        }
}
