// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test binary be the dataplane that its tests start.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "dataplane" {
		os.Exit(Main(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}
