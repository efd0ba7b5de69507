// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"testing"

	"sluice/test/loopback"
)

func TestMain(m *testing.M) { loopback.Main(m) }
