// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"sync"
	"testing"

	"sluice/api"
)

// TestDelsTogether: of DELs that come at once one can't be worked on, since somebody has
// given its interface's name to another: it fails alone, and can be repeated.
func TestDelsTogether(t *testing.T) {
	l := newLab(t)
	l.start()
	var all []*api.CNIAddRequest
	for i := range 8 {
		r := addRequest(l.netns(), i)
		r.Declare, r.Publish = "networks: [{name: pods, subnets: [10.85.0.0/24]}]", nil
		if _, err := l.api.CNIAdd(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	const odd = 3
	name := ""
	for _, link := range l.links() {
		if link.Sandbox.CNIKey == all[odd].CNIKey {
			name = fmt.Sprintf("sl%d", link.Port)
		}
	}
	in := []string{"nsenter", "--net=" + l.run("netns/sluice"), "ip", "link"}
	l.sh(append(in, "set", name, "name", "elsewhere")...)
	l.sh(append(in, "add", name, "type", "bridge")...)

	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, r := range all {
		wg.Go(func() { errs[i] = l.api.CNIDel(t.Context(), &api.CNIDelRequest{CNIKey: r.CNIKey}) })
	}
	wg.Wait()
	for i, err := range errs {
		if (err != nil) != (i == odd) {
			t.Errorf("DEL %d: %v", i, err)
		}
	}
	if left := l.links(); len(left) != 1 || left[0].Sandbox.CNIKey != all[odd].CNIKey {
		t.Errorf("left are %+v", left)
	}
	l.sh(append(in, "del", name)...)
	if err := l.api.CNIDel(t.Context(), &api.CNIDelRequest{CNIKey: all[odd].CNIKey}); err != nil {
		t.Errorf("once its interface is gone: %v", err)
	}
	if left := l.links(); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
}
