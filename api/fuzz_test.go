// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"sluice/api"
)

// FuzzReadRequest: any body is either refused with an *Error, or decoded into
// what encodes to an equal request. The corpus is under testdata/fuzz.
func FuzzReadRequest(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		var r api.AttachRequest
		if err := api.ReadRequest(bytes.NewReader(body), &r); err != nil {
			e, ok := errors.AsType[*api.Error](err)
			if !ok || e.Code != api.CodeInvalid || e.Message == "" {
				t.Fatalf("error is %T %+v", err, err)
			}
			return
		}
		first, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again api.AttachRequest
		if err := api.ReadRequest(bytes.NewReader(first), &again); err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if second, _ := json.Marshal(again); !bytes.Equal(first, second) {
			t.Fatalf("%s became %s", first, second)
		}
	})
}
