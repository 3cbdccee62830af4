rootProject.name = "trunkline"
