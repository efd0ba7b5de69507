// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
)

// TestPages: a part of a list arrives as it was sent, and one that can't be is refused.
func TestPages(t *testing.T) {
	want := &api.Page{Next: 1 << 40, Lost: 3, Entries: 2, Body: []byte("one\ntwo\n")}
	asked := ""
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.RequestURI()
		api.WritePage(w, want)
	})
	q := api.PageQuery{ShowQuery: api.ShowQuery{Namespace: "shop", Words: []string{"-L", "-p", "tcp"}}, From: 7, Lines: true}
	got, err := c.Connections(t.Context(), q)
	if diff := cmp.Diff(want, got); diff != "" || err != nil || asked != "/v1/connections?from=7&lines=1&namespace=shop&words=-L+-p+tcp" {
		t.Errorf("%v, asked %s: %s", err, asked, diff)
	}
	want = &api.Page{Body: []byte{}}
	if got, err := c.ConnectionEvents(t.Context(), api.PageQuery{}); err != nil || !cmp.Equal(want, got) || asked != "/v1/connections/events?from=0" {
		t.Errorf("%+v, %v", got, err)
	}
	for name, h := range map[string]http.HandlerFunc{
		"no number":      func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Sluice-Next", "-1") },
		"too long":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 9<<20)) },
		"without an end": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "10") },
	} {
		if _, err := serve(t, h).Connections(t.Context(), q); err == nil || !strings.HasPrefix(err.Error(), "reply of sluiced: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	refuses := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		api.WriteError(w, &api.Error{Code: api.CodeInvalid, Field: "words", Message: "no"})
	})
	if _, err := refuses.DeleteConnections(t.Context(), new(api.DeleteConnectionsRequest)); api.CodeOf(err) != api.CodeInvalid {
		t.Error(err)
	}
}
