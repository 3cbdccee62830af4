// The library for the JVM and Android. Gradle was not run here: tests/kotlin compiles the same sources with kotlinc.
plugins {
    kotlin("jvm") version "2.1.0"
    `java-library`
}

repositories { mavenCentral() }

dependencies { compileOnly("com.microsoft.onnxruntime:onnxruntime:1.22.0") }

kotlin { jvmToolchain(17) }

sourceSets.main {
    kotlin.setSrcDirs(listOf("src/main/kotlin", "src/onnx/kotlin"))
    java.setSrcDirs(emptyList<String>())
}

// The tables that Python and the npm package read, too.
tasks.processResources {
    from("../src/trunkline/text/words.json", "../web/data/bert.json") { into("trunkline") }
}
