import js from "@eslint/js";
import typescript from "typescript-eslint";

export default typescript.config(
  { ignores: ["dist/"] },
  js.configs.recommended,
  {
    files: ["src/**/*.ts"],
    extends: [typescript.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    // Its declaration hides that Long has a toString of its own.
    rules: { "@typescript-eslint/no-base-to-string": ["error", { ignoredTypeNames: ["Long"] }] },
  },
  {
    files: ["test/**"],
    languageOptions: {
      globals: { AbortController: false, AbortSignal: false, URL: false, fetch: false, process: false, setTimeout: false },
    },
  },
);
