#include "net/signature.h"

#include <string.h>

#include "net/signature_testing.h"
#include "testing/test.h"

static struct signature_key *read_key(const char *pem)
{
    struct signature_key *key = NULL;
    struct error error = {0};
    CHECK_OK(signature_key_read(str_from_cstr(pem), &error, &key));
    return key;
}

static int value_of(char c)
{
    const char *alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    return (int)(strchr(alphabet, c) - alphabet);
}

// base64url without padding, of known-good text.
static void decode(const char *text, uint8_t out[static SIGNATURE_SIZE])
{
    uint32_t bits = 0;
    uint32_t bit_count = 0;
    size_t size = 0;
    for (; *text != '\0' && size < SIGNATURE_SIZE; text++) {
        bits = bits << 6 | (uint32_t)value_of(*text);
        bit_count += 6;
        if (bit_count >= 8) {
            bit_count -= 8;
            out[size++] = (uint8_t)(bits >> bit_count);
        }
    }
}

// RFC 8037, A.4 and A.5.
TEST(eddsa_as_published)
{
    struct span text = str_span(STR("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"));
    struct signature_key *key = read_key(TEST_KEY_RFC8037_PRIVATE);
    uint8_t wanted[SIGNATURE_SIZE];
    uint8_t made[SIGNATURE_SIZE];
    decode("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
           wanted);
    CHECK_OK(signature_sign(key, text, NULL, made));
    CHECK(memcmp(made, wanted, sizeof(made)) == 0);
    CHECK(signature_verify(key, text, (struct span){wanted, sizeof(wanted)}));
    CHECK_EQ_U64(signature_key_public(key).len, 32);
    signature_key_destroy(key);
}

// RFC 7515, A.3.
TEST(es256_as_published)
{
    struct span text = str_span(
        STR("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt"
            "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ"));
    struct signature_key *key = read_key(TEST_KEY_RFC7515_PUBLIC);
    uint8_t given[SIGNATURE_SIZE];
    uint8_t x[SIGNATURE_SIZE] = {0};
    decode("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
           given);
    CHECK(signature_verify(key, text, (struct span){given, sizeof(given)}));
    decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", x);
    CHECK_EQ_U64(signature_key_public(key).len, 64);
    CHECK(memcmp(signature_key_public(key).data, x, 32) == 0);
    signature_key_destroy(key);
}

static void check_pair(const char *private_pem, const char *public_pem, const char *other_pem,
                       enum signature_algorithm algorithm)
{
    struct signature_key *key = read_key(private_pem);
    struct signature_key *public_key = read_key(public_pem);
    struct signature_key *other = read_key(other_pem);
    struct span text = str_span(STR("what is signed"));
    uint8_t bytes[SIGNATURE_SIZE];
    struct span made = {bytes, sizeof(bytes)};
    CHECK(signature_key_can_sign(key) && !signature_key_can_sign(public_key));
    CHECK(signature_key_algorithm(key) == algorithm);
    CHECK(signature_key_algorithm(public_key) == algorithm);
    struct span a = signature_key_public(key);
    struct span b = signature_key_public(public_key);
    CHECK(a.len == b.len && memcmp(a.data, b.data, a.len) == 0);
    CHECK_STATUS(signature_sign(public_key, text, NULL, bytes), STATUS_BUG);
    // R or S with leading zeros come up once in 128 signatures or so.
    for (int i = 0; i < 600; i++) {
        CHECK_OK(signature_sign(key, text, NULL, bytes));
        if (!CHECK(signature_verify(public_key, text, made)))
            break;
    }
    CHECK(!signature_verify(other, text, made));
    CHECK(!signature_verify(public_key, str_span(STR("what is signee")), made));
    CHECK(!signature_verify(public_key, text, (struct span){bytes, sizeof(bytes) - 1}));
    CHECK(!signature_verify(public_key, text, (struct span){0}));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] ^= 1;
        CHECK(!signature_verify(public_key, text, made));
        bytes[i] ^= 1;
    }
    memset(bytes, 0, sizeof(bytes));
    CHECK(!signature_verify(public_key, text, made)); // CVE-2022-21449
    memset(bytes, 0xff, sizeof(bytes));
    CHECK(!signature_verify(public_key, text, made));
    signature_key_destroy(key);
    signature_key_destroy(public_key);
    signature_key_destroy(other);
}

TEST(a_pair_signs_and_checks)
{
    check_pair(TEST_KEY_ES256_PRIVATE, TEST_KEY_ES256_PUBLIC, TEST_KEY_ES256_OTHER_PUBLIC,
               SIGNATURE_ES256);
    check_pair(TEST_KEY_EDDSA_PRIVATE, TEST_KEY_EDDSA_PUBLIC, TEST_KEY_EDDSA_OTHER_PUBLIC,
               SIGNATURE_EDDSA);
}

TEST(the_older_form_of_a_private_key)
{
    struct signature_key *key = read_key(TEST_KEY_ES256_SEC1);
    CHECK(signature_key_can_sign(key) && signature_key_algorithm(key) == SIGNATURE_ES256);
    signature_key_destroy(key);
}

TEST(what_is_no_key_of_ours)
{
    static const char *const texts[] = {
        "",
        "hello",
        "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        TEST_KEY_EDDSA_LOCKED,
        TEST_KEY_P384_PRIVATE,
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct signature_key *key = NULL;
        struct error error = {0};
        CHECK_STATUS(signature_key_read(str_from_cstr(texts[i]), &error, &key), STATUS_INVALID);
        CHECK(error.text[0] != '\0' && key == NULL);
    }
}

TEST_MAIN()
