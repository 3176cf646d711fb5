#include "base/error.h"

#include <string.h>

#include "base/str.h"
#include "testing/test.h"

TEST(words_go_in_front)
{
    struct error error;
    CHECK_STATUS(error_set(&error, STATUS_CORRUPT, "checksum at byte %d", 4096), STATUS_CORRUPT);
    CHECK_STATUS(error_prefix(&error, STATUS_CORRUPT, "log %06d", 12), STATUS_CORRUPT);
    CHECK_STATUS(error_prefix(&error, STATUS_IO, "open shard %d", 7), STATUS_IO);
    CHECK_CSTR(error.text, "open shard 7: log 000012: checksum at byte 4096");
}

TEST(nobody_has_to_listen)
{
    CHECK_STATUS(error_set(NULL, STATUS_IO, "x"), STATUS_IO);
    CHECK_STATUS(error_prefix(NULL, STATUS_IO, "x"), STATUS_IO);
}

TEST(the_sentence_may_quote_itself)
{
    struct error error;
    CHECK_STATUS(error_set(&error, STATUS_IO, "inner"), STATUS_IO);
    CHECK_STATUS(error_set(&error, STATUS_IO, "outer (%s)", error.text), STATUS_IO);
    CHECK_CSTR(error.text, "outer (inner)");
}

// Whatever is cut, and wherever, stays text.
TEST(long_sentences_are_cut_between_characters)
{
    static const char *const characters[] = {"x", "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};
    for (size_t i = 0; i < 4; i++) {
        for (size_t shift = 0; shift < 4; shift++) {
            char text[1024] = "abcd";
            text[shift] = '\0';
            while (strlen(text) < 900)
                strncat(text, characters[i], 8);
            struct error error;
            CHECK_STATUS(error_set(&error, STATUS_INVALID, "%s", text), STATUS_INVALID);
            CHECK(str_is_utf8(str_from_cstr(error.text)));
            CHECK(strlen(error.text) > ERROR_TEXT_SIZE - 5);
            CHECK(strncmp(error.text, text, strlen(error.text)) == 0);

            CHECK_STATUS(error_prefix(&error, STATUS_INVALID, "in front"), STATUS_INVALID);
            CHECK(str_is_utf8(str_from_cstr(error.text)));
            CHECK(str_starts_with(str_from_cstr(error.text), STR("in front: ")));

            CHECK_STATUS(error_prefix(&error, STATUS_INVALID, "%s", text), STATUS_INVALID);
            CHECK(str_is_utf8(str_from_cstr(error.text)));
        }
    }
}

TEST(bytes_from_outside_do_no_harm)
{
    struct error error;
    CHECK_STATUS(error_set(&error, STATUS_INVALID, "id \"%s\"", "a\xFF\xC3\xA4\xE2\x82z\xC0"),
                 STATUS_INVALID);
    CHECK_CSTR(error.text, "id \"a?\xC3\xA4??z?\"");
    CHECK_STATUS(error_prefix(&error, STATUS_INVALID, "\xFF"), STATUS_INVALID);
    CHECK_CSTR(error.text, "?: id \"a?\xC3\xA4??z?\"");
}

TEST(errno_has_words)
{
    CHECK_CSTR(error_system_text(2), "No such file or directory");
    CHECK_CSTR(error_system_text(100000), "unknown error");
}

TEST_MAIN()
