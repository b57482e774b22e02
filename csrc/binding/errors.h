// ivk's exceptions as those of internvl_kernels.errors.
#pragma once

namespace ivk::binding {
void register_errors();
}
