plugins {
    id("com.android.application")
    kotlin("android")
}

android {
    namespace = "sample"
    compileSdk = 35
    defaultConfig {
        applicationId = "trunkline.sample"
        minSdk = 24
        targetSdk = 35
        versionCode = 1
        versionName = "0.1.0"
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
    // `bundle` is the folder of an exported bundle; the weights do not get smaller by compression.
    androidResources { noCompress += listOf("onnx", "safetensors") }
}

// The substitution of the included build ../: its project is named trunkline.
dependencies {
    implementation(":trunkline")
    implementation("com.microsoft.onnxruntime:onnxruntime-android:1.22.0")
}
