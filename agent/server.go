// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"sluice/api"
)

// Times of the API's connections. A request's body is local and small.
const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second
	// answerTimeout is how long a client may take to read an answer, which it does not
	// do at the pace of a terminal: it has all of it before it prints any.
	answerTimeout = 30 * time.Second
	// endTimeout is how long requests in work may take when the agent ends.
	endTimeout = 15 * time.Second
)

// listen makes the API's socket. What is there is left over: we have the lock.
// The directory keeps strangers out until the mode is set.
func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket of the API: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// serve answers requests until the context is done or a client asks for the end;
// stopPlane says whether that client wants the dataplane to end too.
func (a *Agent) serve(ctx context.Context, l net.Listener) (stopPlane bool, err error) {
	srv := &http.Server{Handler: a.routes(), ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return false, err
	case <-ctx.Done():
	case stopPlane = <-a.shutdown:
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	err = srv.Shutdown(ctx)
	<-failed
	return stopPlane, err
}

// routes are the paths of package api.
func (a *Agent) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+api.PathAttach, command(a, a.attach))
	mux.HandleFunc("POST "+api.PathDetach, command(a, a.detach))
	mux.HandleFunc("POST "+api.PathApply, command(a, a.apply))
	mux.HandleFunc("POST "+api.PathNetworkDel, command(a, a.deleteNetwork))
	mux.HandleFunc("POST "+api.PathCommand, command(a, a.command))
	mux.HandleFunc("POST "+api.PathCNIAdd, command(a, a.cniAdd))
	mux.HandleFunc("POST "+api.PathCNIDel, command(a, a.cniDel))
	mux.HandleFunc("POST "+api.PathCNICheck, command(a, a.cniCheck))
	mux.HandleFunc("POST "+api.PathCNIGC, command(a, a.cniGC))
	mux.HandleFunc("GET "+api.PathCNIStatus, one(a, a.cniStatus))
	mux.HandleFunc("POST "+api.PathShutdown, command(a, a.end))
	mux.HandleFunc("GET "+api.PathLinks, list(a, a.links))
	mux.HandleFunc("GET "+api.PathNetworks, list(a, a.networks))
	mux.HandleFunc("GET "+api.PathAddresses, list(a, func(_ context.Context, q query) ([]api.Address, error) { return a.addresses(q) }))
	mux.HandleFunc("GET "+api.PathNeighbours, list(a, a.neighbours))
	mux.HandleFunc("GET "+api.PathFDB, list(a, a.fdb))
	mux.HandleFunc("GET "+api.PathSockets, one(a, a.socketPage))
	mux.HandleFunc("GET "+api.PathNamespaces, list(a, func(_ context.Context, q query) ([]api.Namespace, error) { return a.namespaces(q) }))
	mux.HandleFunc("GET "+api.PathRoutes, list(a, func(_ context.Context, q query) ([]api.Route, error) { return a.routeList(q) }))
	mux.HandleFunc("GET "+api.PathRules, list(a, func(_ context.Context, q query) ([]api.Rule, error) { return a.ruleList(q) }))
	mux.HandleFunc("GET "+api.PathVRFs, list(a, func(_ context.Context, q query) ([]api.VRF, error) { return a.vrfList(q) }))
	mux.HandleFunc("GET "+api.PathUplinks, list(a, a.uplinkList))
	mux.HandleFunc("GET "+api.PathDevices, list(a, func(_ context.Context, q query) ([]api.Device, error) { return a.deviceList(q) }))
	mux.HandleFunc("GET "+api.PathVLANs, list(a, func(_ context.Context, q query) ([]api.VLANPort, error) { return a.vlanList(q) }))
	mux.HandleFunc("GET "+api.PathMDB, list(a, a.mdb))
	mux.HandleFunc("GET "+api.PathQueueing, one(a, a.queueing))
	mux.HandleFunc("GET "+api.PathTrees, list(a, a.trees))
	mux.HandleFunc("GET "+api.PathConnections, one(a, a.connections))
	mux.HandleFunc("POST "+api.PathNFT, command(a, a.nft))
	mux.HandleFunc("GET "+api.PathNFTHistory, list(a, a.nftHistory))
	mux.HandleFunc("GET "+api.PathNFTEvents, one(a, a.nftEvents))
	mux.HandleFunc("POST "+api.PathNFTExplain, command(a, a.nftExplain))
	mux.HandleFunc("POST "+api.PathNFTDiff, command(a, a.nftDiff))
	mux.HandleFunc("POST "+api.PathNFTUndo, command(a, a.nftUndo))
	mux.HandleFunc("POST "+api.PathNFTConfirm, command(a, a.nftConfirm))
	mux.HandleFunc("POST "+api.PathConnDelete, command(a, a.deleteConnections))
	mux.HandleFunc("GET "+api.PathConnStats, one(a, a.connStats))
	mux.HandleFunc("GET "+api.PathConnEvents, one(a, a.connEvents))
	mux.HandleFunc("GET "+api.PathNAT, list(a, func(_ context.Context, q query) ([]api.NATRule, error) { return a.natList(q) }))
	mux.HandleFunc("GET "+api.PathBindings, list(a, a.bindingList))
	mux.HandleFunc("GET "+api.PathPublished, list(a, func(_ context.Context, q query) ([]api.Published, error) { return a.publishedList(q) }))
	mux.HandleFunc("GET "+api.PathDNSNames, list(a, func(_ context.Context, q query) ([]api.DNSName, error) { return a.dnsNames(q) }))
	mux.HandleFunc("GET "+api.PathDNSStats, list(a, a.dnsStats))
	mux.HandleFunc("GET "+api.PathServices, list(a, a.serviceList))
	mux.HandleFunc("GET "+api.PathRouteGet, one(a, a.routeGet))
	mux.HandleFunc("GET "+api.PathStatus, func(w http.ResponseWriter, r *http.Request) {
		s, err := within(a, func() (*api.Status, error) { return a.status(r.Context()) })
		answer(w, s, err)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil, refuse(api.CodeNotFound, "", "no %s %s in this version of the API", r.Method, r.URL.Path))
	})
	return mux
}

// within works on a request, unless the agent has ended: what it would use is
// being closed then.
func within[Out any](a *Agent, f func() (Out, error)) (Out, error) {
	a.life.RLock()
	defer a.life.RUnlock()
	if a.ended {
		var none Out
		return none, unavailable(errEnded)
	}
	return f()
}

// errEnded is what a request is told that comes too late.
var errEnded = errors.New("sluiced is ending")

// finish returns when no request is worked on and none will be. One that outlasts
// endTimeout is waited for: it ends, since all that it waits for is bounded.
func (a *Agent) finish() {
	a.life.Lock()
	defer a.life.Unlock()
	a.ended = true
}

// command serves a request with a body.
func command[In, Out any](a *Agent, f func(context.Context, *In) (*Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		in := new(In)
		if err := api.ReadRequest(r.Body, in); err != nil {
			answer(w, nil, err)
			return
		}
		out, err := within(a, func() (*Out, error) { return f(r.Context(), in) })
		answer(w, out, err)
	}
}

// maxWords bounds the words of a query, in bytes.
const maxWords = 4096

// query is what the lists can be asked.
type query struct {
	network   string // empty: all
	stats     bool
	namespace string   // empty: all
	port      string   // of the namespace: whose ruleset is meant; empty: the namespace's
	words     []string // what follows `show`
	after     uint64   // number of an event; 0: from now on
	from      uint64   // where a part of a list begins
	lines     bool     // as conntrack(8) would print it
}

// one serves a request without a body that has one answer.
func one[Out any](a *Agent, f func(context.Context, query) (*Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := readQuery(r.URL.Query())
		if err != nil {
			answer(w, nil, err)
			return
		}
		out, err := within(a, func() (*Out, error) { return f(r.Context(), q) })
		answer(w, out, err)
	}
}

// list serves a request without a body.
func list[Out any](a *Agent, f func(context.Context, query) ([]Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := readQuery(r.URL.Query())
		if err != nil {
			answer(w, nil, err)
			return
		}
		out, err := within(a, func() ([]Out, error) { return f(r.Context(), q) })
		answer(w, out, err)
	}
}

// readQuery is as strict as the decoding of bodies.
func readQuery(values url.Values) (query, error) {
	var q query
	for name, v := range values {
		if len(v) != 1 || !q.set(name, v[0]) {
			return q, refuse(api.CodeInvalid, name, "unknown parameter or value %s=%q", name, v)
		}
	}
	return q, nil
}

// set takes a parameter; false if it is not known, or its value is wrong.
func (q *query) set(name, value string) bool {
	switch name {
	case "network":
		q.network = value
	case "namespace":
		q.namespace = value
	case "port":
		q.port = value
	case "words":
		q.words = strings.Fields(value)
		return len(value) <= maxWords
	case "after":
		var err error
		q.after, err = strconv.ParseUint(value, 10, 64)
		return err == nil
	case "from":
		var err error
		q.from, err = strconv.ParseUint(value, 10, 64)
		return err == nil
	case "lines":
		q.lines = true
		return value == "1"
	case "stats":
		q.stats = true
		return value == "1"
	default:
		return false
	}
	return true
}

// answer answers a request. A client that does not read it is left after a while, so
// that it keeps no memory here.
func answer(w http.ResponseWriter, out any, err error) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout)) // a connection has one
	if err != nil {
		api.WriteError(w, err)
		return
	}
	if p, ok := out.(*api.Page); ok {
		api.WritePage(w, p)
		return
	}
	api.WriteReply(w, out)
}

// end asks Run to end once this request is answered.
func (a *Agent) end(_ context.Context, r *api.ShutdownRequest) (*struct{}, error) {
	select {
	case a.shutdown <- r.Dataplane:
	default: // somebody was faster
	}
	return &struct{}{}, nil
}
