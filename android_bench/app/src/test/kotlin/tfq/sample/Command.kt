package tfq.sample

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * What needs no Android, for tests on a computer: a job a line, on standard input.
 *
 *     feed MODEL PICTURE WIDTH HEIGHT KIND SCALE ZERO_POINT ROWS COLUMNS CHANNELS INTO
 *     best MODEL OUTPUT KIND SCALE ZERO_POINT CLASSES COUNT
 *
 * PICTURE holds ARGB, big-endian. `feed` writes the elements to INTO; `best` prints a name and a score a class.
 */
fun main() {
    generateSequence(::readLine).map { it.split(" ") }.forEach { job ->
        val model = ByteBuffer.wrap(File(job[1]).readBytes())
        val bytes = ByteBuffer.wrap(File(job[2]).readBytes())
        when (job[0]) {
            "feed" -> {
                val argb = IntArray(bytes.remaining() / 4).also { bytes.asIntBuffer().get(it) }
                val shape = intArrayOf(1) + job.subList(8, 11).map { it.toInt() }
                val input = TensorInfo(Kind.valueOf(job[5]), shape, job[6].toFloat(), job[7].toInt())
                val elements = feed(Picture(job[3].toInt(), job[4].toInt(), argb), input, readMetadata(model))
                File(job[11]).writeBytes(ByteArray(elements.remaining()).also { elements.get(it) })
            }
            "best" -> {
                val shape = intArrayOf(1, job[6].toInt())
                val output = TensorInfo(Kind.valueOf(job[3]), shape, job[4].toFloat(), job[5].toInt())
                val scores = output.real(bytes.order(ByteOrder.nativeOrder()))
                best(scores, job[7].toInt()).forEach { println("${readMetadata(model).labels[it]} ${scores[it]}") }
            }
        }
    }
}
