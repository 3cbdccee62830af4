// Makes the modules in src/generated of the files that Python reads too: the words' table, the manifest's schema, and
// what BERT's normalizer does with each character.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const web = new URL("../", import.meta.url);
const tables = {
  words: ["WORDS", "../src/trunkline/text/words.json"],
  schema: ["SCHEMA", "../docs/bundle.schema.json"],
  bert: ["BERT", "data/bert.json"],
};

mkdirSync(new URL("src/generated/", web), { recursive: true });
for (const [name, [constant, file]] of Object.entries(tables)) {
  const json = JSON.stringify(JSON.parse(readFileSync(new URL(file, web), "utf8")));
  const text = `// Made by scripts/tables.mjs of ${file}.\nexport const ${constant}: unknown = ${json};\n`;
  writeFileSync(new URL(`src/generated/${name}.ts`, web), text);
}
