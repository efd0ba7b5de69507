// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/api"
)

// TestServerIsStrict asks for what is refused before the agent is even looked at.
func TestServerIsStrict(t *testing.T) {
	a := new(Agent)
	tests := map[string]struct {
		method, path, body string
		status             int
		code               api.Code
	}{
		"unknown path":         {"GET", "/v1/nothing", "", 404, api.CodeNotFound},
		"another version":      {"GET", "/v2/links", "", 404, api.CodeNotFound},
		"wrong method":         {"GET", api.PathAttach, "", 404, api.CodeNotFound},
		"unknown parameter":    {"GET", api.PathLinks + "?net=blue", "", 400, api.CodeInvalid},
		"parameter twice":      {"GET", api.PathLinks + "?network=a&network=b", "", 400, api.CodeInvalid},
		"odd value":            {"GET", api.PathLinks + "?stats=yes", "", 400, api.CodeInvalid},
		"unknown field":        {"POST", api.PathAttach, `{"netns":"red","nets":1}`, 400, api.CodeInvalid},
		"no body":              {"POST", api.PathDetach, "", 400, api.CodeInvalid},
		"more than one object": {"POST", api.PathApply, "{}{}", 400, api.CodeInvalid},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			a.routes().ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
			var e api.Error
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != tt.status || e.Code != tt.code {
				t.Errorf("status %d, body %s, %v", w.Code, w.Body, err)
			}
		})
	}
}

func TestShutdownIsAskedOnce(t *testing.T) {
	a := &Agent{shutdown: make(chan bool, 1)}
	for range 2 {
		w := httptest.NewRecorder()
		a.routes().ServeHTTP(w, httptest.NewRequest("POST", api.PathShutdown, strings.NewReader(`{"dataplane":true}`)))
		if w.Code != http.StatusOK {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	}
	if !<-a.shutdown {
		t.Error("the dataplane was not to be stopped")
	}
}

// TestNothingIsWorkedOnAfterTheEnd: with an agent that has neither store nor
// counters, anything else than a refusal would be a panic.
func TestNothingIsWorkedOnAfterTheEnd(t *testing.T) {
	a := new(Agent)
	release, ended := make(chan struct{}), make(chan struct{})
	var worked atomic.Bool
	running := make(chan struct{})
	go func() {
		_, _ = within(a, func() (any, error) {
			close(running)
			<-release
			worked.Store(true)
			return nil, nil
		})
	}()
	<-running
	go func() {
		a.finish()
		if !worked.Load() {
			t.Error("did not wait for a request")
		}
		close(ended)
	}()
	for !writerWaits(&a.life) { // finish
		runtime.Gosched()
	}
	close(release)
	<-ended
	for path, method := range map[string]string{
		api.PathAttach: "POST", api.PathDetach: "POST", api.PathApply: "POST", api.PathShutdown: "POST", api.PathStatus: "GET",
		api.PathLinks: "GET", api.PathNetworks: "GET", api.PathAddresses: "GET", api.PathNeighbours: "GET", api.PathFDB: "GET", api.PathSockets: "GET",
	} {
		w := httptest.NewRecorder()
		a.routes().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader("{}")))
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("%s: status %d: %s", path, w.Code, w.Body)
		}
	}
}

// writerWaits reports whether somebody waits for the lock, or holds it.
//
// +checklocksignore: the analysis does not know TryRLock.
func writerWaits(mu *sync.RWMutex) bool {
	if !mu.TryRLock() {
		return true
	}
	mu.RUnlock()
	return false
}
