// Runs the orders of a JSON file in Node and prints the results into another.
import { readFileSync, writeFileSync } from "node:fs";
import { folder } from "../../web/dist/node.js";
import { check } from "./check.mjs";

const [orders, results, bundles] = process.argv.slice(2);
const found = await check(JSON.parse(readFileSync(orders, "utf8")), (name) => folder(`${bundles}/${name}`));
writeFileSync(results, JSON.stringify(found));
