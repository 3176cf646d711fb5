#pragma once

// Keys for tests, made with `openssl genpkey`. Nothing is protected by them.

#define TEST_KEY_ES256_PRIVATE                                           \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgzvUDC005FJ48pB/e\n" \
    "lw6WUxXd/lBfRf2CRJpaDDkSXI6hRANCAAS10remxWu79sVjxEW9NN284jDtnwRW\n" \
    "EPXQ3PY5lKVFGTrdTR/ySx059uXxRPJeIN5zu04ZBVWbGWNbYMH2J4Y9\n"         \
    "-----END PRIVATE KEY-----\n"
#define TEST_KEY_ES256_PUBLIC                                            \
    "-----BEGIN PUBLIC KEY-----\n"                                       \
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEtdK3psVru/bFY8RFvTTdvOIw7Z8E\n" \
    "VhD10Nz2OZSlRRk63U0f8ksdOfbl8UTyXiDec7tOGQVVmxljW2DB9ieGPQ==\n"     \
    "-----END PUBLIC KEY-----\n"
#define TEST_KEY_ES256_SEC1                                              \
    "-----BEGIN EC PRIVATE KEY-----\n"                                   \
    "MHcCAQEEICh221vnv7T278VTJYm4vINp9g1lIcVhSiFUZ0zfkqCwoAoGCCqGSM49\n" \
    "AwEHoUQDQgAEOeNU0P98TOwAe5ZJWQ8elrJrdHSIw3iLposm2tWJ60gOpo7U1R9l\n" \
    "zc+N5/yPrAsCU3GRgg0uumIDco4Bqxk8Bg==\n"                             \
    "-----END EC PRIVATE KEY-----\n"
#define TEST_KEY_ES256_OTHER_PRIVATE                                     \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgCw2V8qBWSfVcD66f\n" \
    "WCN7JthVzsuiyPIi9kxkTNl1jzihRANCAAQK8OCDBhO4JWBhdxAVfAwZV9sPBP8z\n" \
    "aM4E4AkPxDD6lRHY1S+Yzo9+9oY7RJCMLTwilG5YMUovfIRshYhgQC4c\n"         \
    "-----END PRIVATE KEY-----\n"
#define TEST_KEY_ES256_OTHER_PUBLIC                                      \
    "-----BEGIN PUBLIC KEY-----\n"                                       \
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAECvDggwYTuCVgYXcQFXwMGVfbDwT/\n" \
    "M2jOBOAJD8Qw+pUR2NUvmM6PfvaGO0SQjC08IpRuWDFKL3yEbIWIYEAuHA==\n"     \
    "-----END PUBLIC KEY-----\n"
#define TEST_KEY_EDDSA_PRIVATE                                           \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MC4CAQAwBQYDK2VwBCIEINOZ0Q5ef7BppjA8MHhTsOwoiq8GRqnq7Icc41Dxm085\n" \
    "-----END PRIVATE KEY-----\n"
#define TEST_KEY_EDDSA_PUBLIC                                        \
    "-----BEGIN PUBLIC KEY-----\n"                                   \
    "MCowBQYDK2VwAyEA27YXVrP4N1Fr0sjNMHfsrK7HQI81VDE8rSX4l1TJkmQ=\n" \
    "-----END PUBLIC KEY-----\n"
#define TEST_KEY_EDDSA_OTHER_PRIVATE                                     \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MC4CAQAwBQYDK2VwBCIEIDwrIJQDow7Hx/7Fb2A/ugxn6ToirqopxxdQIeJRxM91\n" \
    "-----END PRIVATE KEY-----\n"
#define TEST_KEY_EDDSA_OTHER_PUBLIC                                  \
    "-----BEGIN PUBLIC KEY-----\n"                                   \
    "MCowBQYDK2VwAyEAgZkGdM5jDX/LNYGziMOqqX49oDebo9U2P/4qphuSXBE=\n" \
    "-----END PUBLIC KEY-----\n"
#define TEST_KEY_EDDSA_LOCKED                                            \
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"                            \
    "MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAiNxu8aecCQEwICCAAw\n" \
    "DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEL9KZQmfMD3jNP9933Tt0zUEQE8C\n" \
    "5iwUl9sCmyrUN/23KdzFHxAanQyMumZ1ueu8Bd3/SFfTs41i8BBi2SyhZTZnGqgr\n" \
    "yVEJzWfXkRrBTWQGLfc=\n"                                             \
    "-----END ENCRYPTED PRIVATE KEY-----\n"
#define TEST_KEY_P384_PRIVATE                                            \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDBp1amFpCAMLdNOAhDR\n" \
    "hPhisQn7lmW8ee0OBayw4EpbDBMn8c6g7gbIqcl7rMNc7mKhZANiAAQ0d/ygSSWT\n" \
    "/+LecxZN/tffW9VhLJPluds61H31YKqHhrONN+ttZRg0pcHJtRQnjqcLSw8Gq7X4\n" \
    "S5eDund/VOQH/we6Bj5cR1+iaMpTixhyCEN6tPhCaAX2q38GqfmmYzM=\n"         \
    "-----END PRIVATE KEY-----\n"
#define TEST_KEY_RFC8037_PRIVATE                                         \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n" \
    "-----END PRIVATE KEY-----\n"
#define TEST_KEY_RFC7515_PUBLIC                                          \
    "-----BEGIN PUBLIC KEY-----\n"                                       \
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n" \
    "6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"     \
    "-----END PUBLIC KEY-----\n"
