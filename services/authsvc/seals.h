#pragma once

#include "authsvc/auth.h"

// While the secret is being changed: every stored API key that is sealed under the previous one is
// sealed under the current one, so that tokens can still be made for it when the previous secret is
// gone. Nothing to do without a previous secret. Not on a loop.

// What the store says. A key that opens under neither secret is left as it is.
enum status seals_renew(struct authsvc *authsvc, struct error *error);
