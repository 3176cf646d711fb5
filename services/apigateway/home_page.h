#pragma once

#include "api/rpc.h"

// GET /: a small page that says what this is and where to go on. Open to everybody.

void home_page_add(struct rpc_router *router);
