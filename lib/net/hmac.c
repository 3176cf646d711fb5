#include "net/hmac.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/assert.h"

void hmac_sha256(struct span key, struct span data, uint8_t out[static HMAC_SHA256_SIZE])
{
    static const uint8_t nothing[1] = {0};
    ASSERT(key.len <= INT32_MAX);
    unsigned size = 0;
    const uint8_t *done = HMAC(EVP_sha256(), key.len > 0 ? key.data : nothing, (int)key.len,
                               data.len > 0 ? data.data : nothing, data.len, out, &size);
    ASSERT(done != NULL && size == HMAC_SHA256_SIZE);
}

void hmac_sha256_hex(struct span key, struct span data, char out[static 65])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[HMAC_SHA256_SIZE];
    hmac_sha256(key, data, bytes);
    for (unsigned i = 0; i < HMAC_SHA256_SIZE; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * HMAC_SHA256_SIZE] = '\0';
}
