#include "identity/password.h"

#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "testing/test.h"

static bool is_fine(const char *password)
{
    struct error error = {0};
    enum status status = password_check_rules(str_from_cstr(password), &error);
    CHECK(status == STATUS_OK || strncmp(error.text, "password: ", 10) == 0);
    return status == STATUS_OK;
}

TEST(rules)
{
    CHECK(is_fine("Passw0rd"));
    CHECK(is_fine("passw0rd!"));
    CHECK(is_fine("PASSW0RD!"));
    CHECK(is_fine("Password!"));
    CHECK(!is_fine("Passw0r"));
    CHECK(!is_fine("password"));
    CHECK(!is_fine("passw0rd"));
    CHECK(!is_fine("PASSWORD1"));
    CHECK(!is_fine(""));
    CHECK(!is_fine("Aa1\xff\xff\xff\xff\xff"));
    // Characters count, not bytes: seven of them in twelve bytes, and 128 in more than 200.
    CHECK(!is_fine("Aa\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"));
    CHECK(is_fine("Aa1\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"));
    char text[300] = "Aa1";
    for (size_t i = 3; i < 128; i++)
        text[i] = 'x';
    CHECK(is_fine(text));
    text[128] = 'x';
    CHECK(!is_fine(text));
    for (size_t i = 0; i < 125; i++) {
        text[3 + 2 * i] = (char)0xc3;
        text[4 + 2 * i] = (char)0xa9;
    }
    CHECK(is_fine(text));
}

TEST(hash_and_verify)
{
    char hash[PASSWORD_HASH_SIZE];
    bool is_right = false;
    CHECK(password_init(NULL) == STATUS_OK);
    CHECK(password_hash(STR("Passw0rd"), NULL, hash) == STATUS_OK);
    CHECK(strncmp(hash, "$argon2id$", 10) == 0);
    CHECK(strstr(hash, "m=19456,t=2,") != NULL);
    CHECK(password_verify(hash, STR("Passw0rd"), NULL, &is_right) == STATUS_OK && is_right);
    CHECK(password_verify(hash, STR("Passw0rd "), NULL, &is_right) == STATUS_OK && !is_right);
    CHECK(password_verify(hash, STR(""), NULL, &is_right) == STATUS_OK && !is_right);
    CHECK(password_verify(NULL, STR("Passw0rd"), NULL, &is_right) == STATUS_OK && !is_right);
    CHECK(password_verify(NULL, STR(""), NULL, &is_right) == STATUS_OK && !is_right);
    // What is longer than any password is never right, even with a good beginning.
    char text[1000];
    memset(text, 'x', sizeof(text));
    CHECK(password_hash((struct str){text, 512}, NULL, hash) == STATUS_OK);
    CHECK(password_verify(hash, (struct str){text, 1000}, NULL, &is_right) == STATUS_OK);
    CHECK(!is_right);
}

static uint64_t least_ns(const char *hash, struct str password)
{
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        bool is_right;
        uint64_t start = clock_monotonic_ns();
        CHECK(password_verify(hash, password, NULL, &is_right) == STATUS_OK);
        uint64_t took = clock_monotonic_ns() - start;
        least = took < least ? took : least;
    }
    return least;
}

TEST(an_unknown_user_takes_as_long)
{
    char hash[PASSWORD_HASH_SIZE];
    CHECK(password_init(NULL) == STATUS_OK);
    CHECK(password_hash(STR("Passw0rd"), NULL, hash) == STATUS_OK);
    uint64_t known = least_ns(hash, STR("wrong"));
    uint64_t unknown = least_ns(NULL, STR("wrong"));
    // Wide, for busy machines: what must not be is an answer without any hashing.
    CHECK(unknown > known / 2 && known > unknown / 2);
}

static void *verify_many(void *context)
{
    for (int i = 0; i < 3; i++) {
        bool is_right = false;
        CHECK(password_verify(context, STR("Passw0rd"), NULL, &is_right) == STATUS_OK);
        CHECK(is_right);
    }
    return NULL;
}

TEST(many_at_once_take_turns)
{
    char hash[PASSWORD_HASH_SIZE];
    pthread_t threads[6];
    CHECK(password_init(NULL) == STATUS_OK);
    CHECK(password_hash(STR("Passw0rd"), NULL, hash) == STATUS_OK);
    for (int i = 0; i < 6; i++)
        CHECK(pthread_create(&threads[i], NULL, verify_many, hash) == 0);
    for (int i = 0; i < 6; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static bool email_becomes(const char *text, const char *expected)
{
    struct arena *arena = arena_create(1 << 16);
    struct str email = {0};
    enum status status = email_normalise(str_from_cstr(text), arena, NULL, &email);
    bool is_right = expected == NULL ? status == STATUS_INVALID
                                     : status == STATUS_OK && str_equal_cstr(email, expected);
    arena_destroy(arena);
    return is_right;
}

TEST(emails)
{
    CHECK(email_becomes("a@b", "a@b"));
    CHECK(email_becomes("  Ann.Lee+x@Example.ORG\r\n", "ann.lee+x@example.org"));
    CHECK(email_becomes("j\xc3\xa9@b.fr", "j\xc3\xa9@b.fr"));
    CHECK(email_becomes("", NULL));
    CHECK(email_becomes("  ", NULL));
    CHECK(email_becomes("ann", NULL));
    CHECK(email_becomes("@b", NULL));
    CHECK(email_becomes("a@", NULL));
    CHECK(email_becomes("a@b@c", NULL));
    CHECK(email_becomes("a b@c", NULL));
    CHECK(email_becomes("a\tb@c", NULL));
    CHECK(email_becomes("a\x7f@c", NULL));
    CHECK(email_becomes("\xff@c", NULL));
    char text[300];
    memset(text, 'a', sizeof(text));
    text[1] = '@';
    text[254] = '\0';
    CHECK(email_becomes(text, text));
    text[254] = 'a';
    text[255] = '\0';
    CHECK(email_becomes(text, NULL));
}

TEST_MAIN()
