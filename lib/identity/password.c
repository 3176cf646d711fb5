#include "identity/password.h"

#include <pthread.h>
#include <sodium.h>
#include <string.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/rng.h"

// OWASP's recommendation for argon2id: 19 MiB, two passes.
enum { MEMORY_SIZE = 19 << 20, PASSES = 2, RUNNING_MAX = 2 };

_Static_assert(PASSWORD_HASH_SIZE >= crypto_pwhash_STRBYTES, "the hash's text fits");

// --- Turns

static struct {
    pthread_mutex_t lock;
    pthread_cond_t turn_came;
    unsigned running_count;
    unsigned waiting_count;
} turns = {.lock = PTHREAD_MUTEX_INITIALIZER, .turn_came = PTHREAD_COND_INITIALIZER};

static bool take_turn(void)
{
    pthread_mutex_lock(&turns.lock);
    bool may_wait = turns.waiting_count < PASSWORD_WAITING_MAX;
    if (may_wait) {
        turns.waiting_count++;
        while (turns.running_count >= RUNNING_MAX)
            pthread_cond_wait(&turns.turn_came, &turns.lock);
        turns.waiting_count--;
        turns.running_count++;
    }
    pthread_mutex_unlock(&turns.lock);
    return may_wait;
}

static void give_turn(void)
{
    pthread_mutex_lock(&turns.lock);
    turns.running_count--;
    pthread_cond_signal(&turns.turn_came);
    pthread_mutex_unlock(&turns.lock);
}

// --- Hashing

// The hash of a password that nobody knows. Written once, before there are threads that read it.
static char nobody[PASSWORD_HASH_SIZE];
static pthread_mutex_t nobody_lock = PTHREAD_MUTEX_INITIALIZER;

enum status password_init(struct error *error)
{
    if (sodium_init() < 0)
        return error_set(error, STATUS_BUG, "libsodium cannot start");
    enum status status = STATUS_OK;
    pthread_mutex_lock(&nobody_lock);
    if (nobody[0] == '\0') {
        char random[32];
        rng_secure(random, sizeof(random));
        status = password_hash((struct str){random, sizeof(random)}, error, nobody);
        sodium_memzero(random, sizeof(random));
    }
    pthread_mutex_unlock(&nobody_lock);
    return status;
}

static enum status fail_busy(struct error *error)
{
    return error_set(error, STATUS_EXHAUSTED,
                     "%d password checks are waiting already; try again in a few seconds",
                     PASSWORD_WAITING_MAX);
}

enum status password_hash(struct str password, struct error *error,
                          char out_hash[static PASSWORD_HASH_SIZE])
{
    char hash[crypto_pwhash_STRBYTES];
    if (!take_turn())
        return fail_busy(error);
    int failed = crypto_pwhash_argon2id_str(hash, password.data, password.len, PASSES, MEMORY_SIZE);
    give_turn();
    if (failed != 0)
        return error_set(error, STATUS_EXHAUSTED, "no memory for hashing a password");
    memset(out_hash, 0, PASSWORD_HASH_SIZE);
    memcpy(out_hash, hash, sizeof(hash));
    return STATUS_OK;
}

enum status password_verify(const char *hash, struct str password, struct error *error,
                            bool *out_is_right)
{
    ASSERT(nobody[0] != '\0');
    if (!take_turn())
        return fail_busy(error);
    // Nobody's password is longer than the rules allow; what is longer costs no more time.
    const size_t size_max = (size_t)4 * LIMIT_PASSWORD_SIZE_MAX;
    size_t size = password.len < size_max ? password.len : size_max;
    int failed = crypto_pwhash_str_verify(hash != NULL ? hash : nobody, password.data, size);
    give_turn();
    *out_is_right = failed == 0 && hash != NULL && size == password.len;
    return STATUS_OK;
}

// --- Rules

static bool is_continuation(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

enum status password_check_rules(struct str password, struct error *error)
{
    if (!str_is_utf8(password))
        return error_set(error, STATUS_INVALID, "password: not valid UTF-8");
    size_t characters = 0;
    bool has_lower = false;
    bool has_upper = false;
    bool has_digit = false;
    bool has_other = false;
    for (size_t i = 0; i < password.len; i++) {
        uint8_t c = (uint8_t)password.data[i];
        if (is_continuation(c))
            continue;
        characters++;
        bool is_lower = c >= 'a' && c <= 'z';
        bool is_upper = c >= 'A' && c <= 'Z';
        bool is_digit = c >= '0' && c <= '9';
        has_lower = has_lower || is_lower;
        has_upper = has_upper || is_upper;
        has_digit = has_digit || is_digit;
        has_other = has_other || !(is_lower || is_upper || is_digit);
    }
    if (characters < LIMIT_PASSWORD_SIZE_MIN || characters > LIMIT_PASSWORD_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "password: %zu characters; it must have %d to %d",
                         characters, LIMIT_PASSWORD_SIZE_MIN, LIMIT_PASSWORD_SIZE_MAX);
    int classes = has_lower + has_upper + has_digit + has_other;
    if (classes < 3)
        return error_set(error, STATUS_INVALID,
                         "password: %d of the 4 classes lower case, upper case, digits and other "
                         "characters; it must have at least 3",
                         classes);
    return STATUS_OK;
}

// --- E-mail

static bool is_space_or_control(uint8_t c)
{
    return c <= 0x20 || c == 0x7f;
}

enum status email_normalise(struct str email, struct arena *arena, struct error *error,
                            struct str *out_email)
{
    struct str trimmed = str_trim(email);
    if (trimmed.len == 0)
        return error_set(error, STATUS_INVALID, "email: empty");
    if (trimmed.len > LIMIT_EMAIL_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "email: %zu bytes, the limit is %d", trimmed.len,
                         LIMIT_EMAIL_SIZE_MAX);
    if (!str_is_utf8(trimmed))
        return error_set(error, STATUS_INVALID, "email: not valid UTF-8");
    char *lower = arena_alloc(arena, trimmed.len + 1);
    size_t at_count = 0;
    for (size_t i = 0; i < trimmed.len; i++) {
        char c = trimmed.data[i];
        if (is_space_or_control((uint8_t)c))
            return error_set(error, STATUS_INVALID,
                             "email: a space or control character at byte %zu", i);
        at_count += c == '@';
        lower[i] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    if (at_count != 1 || lower[0] == '@' || lower[trimmed.len - 1] == '@')
        return error_set(error, STATUS_INVALID,
                         "email: \"%.*s\" is not NAME@DOMAIN with exactly one @", STR_ARG(trimmed));
    *out_email = (struct str){lower, trimmed.len};
    return STATUS_OK;
}
