// A module without code of its own yet still makes a library.
extern const int empty_translation_unit;
const int empty_translation_unit = 0;
