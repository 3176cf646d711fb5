#include "net/signature.h"

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <string.h>

#include "base/mem.h"

// ES256 signatures are DER inside of OpenSSL and R and S side by side outside of it.

enum { HALF = SIGNATURE_SIZE / 2, DER_SIZE_MAX = 80, PEM_SIZE_MAX = 16 << 10 };

struct signature_key {
    EVP_PKEY *pkey;
    enum signature_algorithm algorithm;
    bool can_sign;
    uint32_t public_size;
    uint8_t public_bytes[SIGNATURE_PUBLIC_SIZE_MAX];
};

const char *signature_algorithm_name(enum signature_algorithm algorithm)
{
    return algorithm == SIGNATURE_ES256 ? "ES256" : "EdDSA";
}

// --- Reading

// A file with a passphrase is refused: there is nobody who could type it.
// NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL's signature
static int no_passphrase(char *buffer, int size, int is_writing, void *context)
{
    (void)buffer;
    (void)size;
    (void)is_writing;
    (void)context;
    return -1;
}

static EVP_PKEY *parse(struct str pem, bool *out_can_sign)
{
    BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    *out_can_sign = pkey != NULL;
    if (pkey == NULL) {
        (void)BIO_reset(bio); // of memory: cannot fail
        pkey = PEM_read_bio_PUBKEY(bio, NULL, no_passphrase, NULL);
    }
    BIO_free(bio);
    ERR_clear_error(); // what went wrong may quote the key
    return pkey;
}

// The point without its first byte, which says that it is not compressed.
static bool read_p256(struct signature_key *key)
{
    uint8_t point[1 + SIGNATURE_PUBLIC_SIZE_MAX];
    char group[32] = "";
    size_t size = 0;
    if (EVP_PKEY_get_group_name(key->pkey, group, sizeof(group), NULL) != 1 ||
        (strcmp(group, "prime256v1") != 0 && strcmp(group, "P-256") != 0) ||
        EVP_PKEY_set_utf8_string_param(key->pkey, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
                                       "uncompressed") != 1 ||
        EVP_PKEY_get_octet_string_param(key->pkey, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point),
                                        &size) != 1 ||
        size != sizeof(point) || point[0] != 4)
        return false;
    key->algorithm = SIGNATURE_ES256;
    key->public_size = SIGNATURE_PUBLIC_SIZE_MAX;
    memcpy(key->public_bytes, point + 1, SIGNATURE_PUBLIC_SIZE_MAX);
    return true;
}

static bool read_ed25519(struct signature_key *key)
{
    size_t size = sizeof(key->public_bytes);
    if (EVP_PKEY_get_raw_public_key(key->pkey, key->public_bytes, &size) != 1)
        return false;
    key->algorithm = SIGNATURE_EDDSA;
    key->public_size = (uint32_t)size;
    return true;
}

static bool read_public(struct signature_key *key)
{
    switch (EVP_PKEY_get_base_id(key->pkey)) {
    case EVP_PKEY_EC:
        return read_p256(key);
    case EVP_PKEY_ED25519:
        return read_ed25519(key);
    default:
        return false;
    }
}

enum status signature_key_read(struct str pem, struct error *error, struct signature_key **out_key)
{
    if (pem.len > PEM_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "a key of more than %d bytes", PEM_SIZE_MAX);
    bool can_sign = false;
    EVP_PKEY *pkey = parse(pem, &can_sign);
    if (pkey == NULL)
        return error_set(error, STATUS_INVALID, "holds no key in PEM without a passphrase");
    struct signature_key *key = mem_alloc(sizeof(*key));
    key->pkey = pkey;
    key->can_sign = can_sign;
    bool is_fine = read_public(key);
    ERR_clear_error();
    if (!is_fine) {
        signature_key_destroy(key);
        return error_set(error, STATUS_INVALID,
                         "holds a key that is neither of P-256 (ES256) nor of Ed25519 (EdDSA)");
    }
    *out_key = key;
    return STATUS_OK;
}

void signature_key_destroy(struct signature_key *key)
{
    if (key == NULL)
        return;
    EVP_PKEY_free(key->pkey); // wipes what is private
    mem_free(key);
}

enum signature_algorithm signature_key_algorithm(const struct signature_key *key)
{
    return key->algorithm;
}

bool signature_key_can_sign(const struct signature_key *key)
{
    return key->can_sign;
}

struct span signature_key_public(const struct signature_key *key)
{
    return (struct span){key->public_bytes, key->public_size};
}

// --- Signing and checking

static const EVP_MD *digest_of(const struct signature_key *key)
{
    return key->algorithm == SIGNATURE_ES256 ? EVP_sha256() : NULL; // EdDSA has its own
}

static bool from_der(const uint8_t *der, size_t size, uint8_t out[static SIGNATURE_SIZE])
{
    const uint8_t *at = der;
    ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &at, (long)size);
    if (pair == NULL)
        return false;
    bool is_fine = BN_bn2binpad(ECDSA_SIG_get0_r(pair), out, HALF) == HALF &&
                   BN_bn2binpad(ECDSA_SIG_get0_s(pair), out + HALF, HALF) == HALF;
    ECDSA_SIG_free(pair);
    return is_fine;
}

// 0: not possible.
static size_t to_der(const uint8_t signature[static SIGNATURE_SIZE],
                     uint8_t out_der[static DER_SIZE_MAX])
{
    ECDSA_SIG *pair = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(signature, HALF, NULL);
    BIGNUM *s = BN_bin2bn(signature + HALF, HALF, NULL);
    int size = 0;
    if (pair != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(pair, r, s) == 1) {
        r = NULL; // the pair's now
        s = NULL;
        uint8_t *at = out_der;
        size = i2d_ECDSA_SIG(pair, NULL) <= DER_SIZE_MAX ? i2d_ECDSA_SIG(pair, &at) : 0;
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(pair);
    return size > 0 ? (size_t)size : 0;
}

enum status signature_sign(const struct signature_key *key, struct span data, struct error *error,
                           uint8_t out_signature[static SIGNATURE_SIZE])
{
    uint8_t bytes[DER_SIZE_MAX];
    size_t size = sizeof(bytes);
    if (!key->can_sign)
        return error_set(error, STATUS_BUG, "a public key cannot sign");
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool is_fine = context != NULL &&
                   EVP_DigestSignInit(context, NULL, digest_of(key), NULL, key->pkey) == 1 &&
                   EVP_DigestSign(context, bytes, &size, data.data, data.len) == 1;
    EVP_MD_CTX_free(context);
    if (is_fine && key->algorithm == SIGNATURE_ES256)
        is_fine = from_der(bytes, size, out_signature);
    else if (is_fine)
        memcpy(out_signature, bytes, SIGNATURE_SIZE);
    ERR_clear_error();
    return is_fine ? STATUS_OK : error_set(error, STATUS_BUG, "a signature cannot be made");
}

bool signature_verify(const struct signature_key *key, struct span data, struct span signature)
{
    uint8_t der[DER_SIZE_MAX];
    if (signature.len != SIGNATURE_SIZE)
        return false;
    if (key->algorithm == SIGNATURE_ES256)
        signature = (struct span){der, to_der(signature.data, der)};
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool is_good =
        signature.len > 0 && context != NULL &&
        EVP_DigestVerifyInit(context, NULL, digest_of(key), NULL, key->pkey) == 1 &&
        EVP_DigestVerify(context, signature.data, signature.len, data.data, data.len) == 1;
    EVP_MD_CTX_free(context);
    ERR_clear_error();
    return is_good;
}
