// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netns"

	"sluice/api"
	"sluice/conntrack"
	"sluice/dataplane"
	"sluice/netstack"
	"sluice/trace"
	"sluice/veth"
)

// openHostNS opens the namespace of the host ends, or makes it.
func openHostNS(dir runDir) (netns.NsHandle, error) {
	ns, err := veth.CreateNetNS(dir.hostNS())
	if err != nil {
		return netns.None(), fmt.Errorf("namespace of the host ends: %w", err)
	}
	return ns, nil
}

// restore brings kernel, dataplane and state file together at a start, see the
// table in the package's comment. When it returns nil, every attachment forwards
// or is failed, and nothing else is left of earlier agents.
func (a *Agent) restore(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.openCounters(); err != nil {
		return err
	}
	if err := a.openConnections(); err != nil {
		return err
	}
	found := a.findDataplane(ctx)
	a.plane.findSpare(ctx)
	own, err := identify(a.ownNS)
	if err != nil {
		return err
	}
	if err := a.store.update(func(t *txn) error { return t.forgetOldBoot(own.Boot, &a.sets) }); err != nil {
		a.log.Error("what uplinks learned in another boot", "err", err)
	}
	st, err := a.store.read()
	if err != nil {
		return err
	}
	r, err := a.newRestorer(st, found)
	if err != nil {
		return err
	}
	if err := r.attachments(); err != nil {
		r.closeAll()
		return err
	}
	if st, err = a.store.read(); err != nil {
		r.closeAll()
		return err
	}
	if err := a.plane.resume(ctx, found, st.snapshot(""), r.carried, r.opened); err != nil {
		r.closeAll()
		return err
	}
	r.announce()
	a.holdCommitted()
	if err := a.dress(ctx, st); err != nil {
		a.log.Error("uplinks", "err", err)
	}
	a.log.Info("restored", "attachments", len(st.attachments), "networks", len(st.networks),
		"dataplane_found", found != nil, "sockets_taken_over", len(r.carried), "pairs_made_again", len(r.again))
	return nil
}

// openCounters maps the table of counters; the numbers of the last run are kept.
func (a *Agent) openCounters() error {
	f, err := trace.CreateCounters(a.dir.counters(), counterSlots)
	if err != nil {
		return err
	}
	a.plane.start.Counters = f
	a.counters, err = trace.MapCounters(f)
	return err
}

// findDataplane returns the running dataplane, if it is one that this agent can
// go on with: of the same build, and counting where this agent reads. Another
// one hands over to a new process first. What does not answer is killed.
func (a *Agent) findDataplane(ctx context.Context) *dataplane.Client {
	path := a.dir.dataplaneSocket()
	c, err := dataplane.Connect(path)
	if errors.Is(err, dataplane.ErrNotRunning) {
		return nil
	}
	if err != nil {
		if !errors.Is(err, dataplane.ErrExited) { // it was ending, and the kernel is slow
			a.log.Warn("the dataplane found running is of no use, killing it", "err", err)
		}
		if err := dataplane.Evict(path); err != nil {
			a.log.Warn("dataplane not killed", "err", err)
		}
		return nil
	}
	if sameBuild(c) && sameFile(c.Counters(), a.plane.start.Counters) {
		a.adoptConnections(c)
		return c
	}
	return a.handover(ctx, c)
}

// handover replaces a dataplane of another build. If that fails it is killed: a
// later start opens what is needed again.
func (a *Agent) handover(ctx context.Context, old *dataplane.Client) *dataplane.Client {
	a.log.Info("dataplane of another build hands over", "old", old.Build(), "new", dataplane.BuildID())
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	_, files := old.Adopted()
	closeFiles(files) // the new one brings its own
	start, beside := a.plane.start, a.dir.connections()+besideConns
	fresh, err := conntrack.CreateFile(beside, a.connEntries())
	if err != nil {
		a.log.Warn("connections begin anew", "err", err)
	}
	start.Connections = fresh
	c, err := dataplane.Handover(ctx, old, start)
	a.settleConnections(fresh, beside, err == nil)
	if err != nil {
		a.log.Warn("handover did not work, starting anew", "err", err)
		_ = old.Kill()
		_ = old.Close()
		return nil
	}
	a.plane.counted.begin()
	a.plane.recount(ctx, c)
	return c
}

func closeFiles(files map[uint16]*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// sameBuild says whether a dataplane is this very program. Two programs that
// don't know what they are must not be taken for one.
func sameBuild(c *dataplane.Client) bool {
	own := dataplane.BuildID()
	return own != "unknown" && c.Build() == own
}

func sameFile(x, y *os.File) bool {
	if x == nil || y == nil {
		return false
	}
	xs, err := x.Stat()
	if err != nil {
		return false
	}
	ys, err := y.Stat()
	return err == nil && os.SameFile(xs, ys)
}

// restorer walks the recorded attachments at a start.
type restorer struct {
	a    *Agent
	st   *state
	ends map[string]veth.HostEnd // in the host namespace, by name
	// was is the snapshot of the dataplane that was found, files its sockets.
	was   map[uint16]netstack.PortSpec
	files map[uint16]*os.File

	// The outcome: sockets taken over, sockets opened, pairs that were made again.
	carried, opened map[uint16]*os.File
	again           []*attachmentRecord
}

func (a *Agent) newRestorer(st *state, found *dataplane.Client) (*restorer, error) {
	r := &restorer{a: a, st: st, ends: make(map[string]veth.HostEnd), was: portsOf(nil)}
	r.carried, r.opened = make(map[uint16]*os.File), make(map[uint16]*os.File)
	if found != nil {
		snapshot, files := found.Adopted()
		r.was, r.files = portsOf(snapshot), files
	}
	ends, err := veth.HostEnds(a.hostNS)
	if err != nil {
		return nil, err
	}
	for _, e := range ends {
		r.ends[e.Name] = e
	}
	return r, nil
}

// closeAll closes every socket, after a failure.
func (r *restorer) closeAll() {
	for _, files := range []map[uint16]*os.File{r.files, r.carried, r.opened} {
		closeFiles(files)
	}
}

// attachments restores or drops each record, and removes what no record knows.
func (r *restorer) attachments() error {
	if err := r.clear(); err != nil {
		return err
	}
	var dropped, changed []*attachmentRecord
	kept := make(map[string]bool)
	for i := range r.st.attachments {
		rec := &r.st.attachments[i]
		was := rec.State
		if !r.attachment(rec) {
			dropped = append(dropped, rec)
			continue
		}
		kept[rec.hostIfName()] = true
		if rec.State != was || rec.State == api.StateFailed {
			changed = append(changed, rec)
		}
	}
	for name := range r.ends {
		if kept[name] {
			continue
		}
		if err := veth.RemoveEnd(r.a.hostNS, r.a.ownNS, name); err != nil {
			return err
		}
	}
	closeFiles(r.files) // what was not taken over
	r.files = nil
	return r.record(dropped, changed)
}

// clear removes the pairs that no record knows, and those of uplinks that are being
// removed: another one may want the name of their interface.
func (r *restorer) clear() error {
	known := make(map[string]bool)
	for i := range r.st.attachments {
		rec := &r.st.attachments[i]
		known[rec.hostIfName()] = rec.Tap == nil && (!rec.Uplink || rec.State != api.StateDeleting)
	}
	for name := range r.ends {
		if known[name] {
			continue
		}
		if err := veth.RemoveEnd(r.a.hostNS, r.a.ownNS, name); err != nil {
			return err
		}
		delete(r.ends, name)
	}
	return nil
}

// record writes down what became of the attachments.
func (r *restorer) record(dropped, changed []*attachmentRecord) error {
	if len(dropped)+len(changed) == 0 {
		return nil
	}
	return r.a.store.update(func(t *txn) error {
		for _, rec := range changed {
			if err := t.putAttachment(rec); err != nil {
				return err
			}
		}
		return t.drop(dropped)
	})
}

// attachment restores one record, sets its state, and says whether it stays. A
// host end of a record that does not stay is removed by the caller.
//
// Only what is proved to have lost its container goes. Any other error may pass,
// and a container that lives keeps what it was promised.
func (r *restorer) attachment(rec *attachmentRecord) bool {
	log := r.a.log.With("nic", rec.Name, "port", rec.Port)
	if rec.State == api.StateDeleting || rec.State == api.StateCreating && !rec.Uplink {
		log.Info("undoing an attachment that was interrupted", "state", rec.State)
		if rec.Tap != nil {
			if err := r.a.removeTap(rec); err != nil {
				log.Warn("tap device left", "err", err)
			}
		}
		r.a.dropRules(rec)
		return false
	}
	err := r.ready(rec)
	switch {
	case errors.Is(err, errNamespaceGone):
		log.Warn("attachment dropped", "ns", rec.Netns, "err", err)
		return false
	case err != nil:
		log.Error("attachment not restored yet, trying again", "ns", rec.Netns, "err", err)
		rec.State, rec.Fault = api.StateFailed, err.Error()
	default:
		rec.State, rec.Fault = api.StateReady, ""
	}
	return true
}

// errNamespaceGone says that what an attachment was made for is no more.
var errNamespaceGone = errors.New("its namespace is gone")

// ready restores the interface and the socket of a ready attachment.
func (r *restorer) ready(rec *attachmentRecord) error {
	if rec.Tap != nil {
		return r.readyTap(rec)
	}
	return r.readyPair(rec)
}

func (r *restorer) readyPair(rec *attachmentRecord) error {
	end, there := r.ends[rec.hostIfName()]
	whole, err := r.whole(rec, &end)
	if err != nil {
		return err
	}
	if there && end.Alias == rec.ID && whole {
		if f := r.files[rec.Port]; f != nil && r.was[rec.Port].MAC == rec.MAC && boundTo(f, end.Index) {
			r.carried[rec.Port] = f
			delete(r.files, rec.Port)
			return nil
		}
		return r.open(rec)
	}
	if there { // of an interrupted attachment that had the same port
		if err := veth.RemoveEnd(r.a.hostNS, r.a.ownNS, end.Name); err != nil {
			return err
		}
	}
	ns, same, err := r.a.placeOf(rec)
	if err != nil {
		return err
	}
	if !same {
		return errNamespaceGone
	}
	defer ns.Close()
	if err := r.make(rec, ns); err != nil {
		return err
	}
	r.ends[rec.hostIfName()] = veth.HostEnd{Name: rec.hostIfName()}
	r.again = append(r.again, rec)
	return r.open(rec)
}

// make makes the host end of an attachment again, with its other end in ns.
func (r *restorer) make(rec *attachmentRecord, ns netns.NsHandle) error {
	n := r.st.network(rec.Network)
	if rec.Uplink {
		return r.a.makeEnd(rec, n)
	}
	_, err := r.a.createPair(rec, n, ns)
	return err
}

func (r *restorer) open(rec *attachmentRecord) error {
	f, err := r.a.openPort(rec)
	if err == nil {
		r.opened[rec.Port] = f
	}
	return err
}

// announce tells the neighbours about the interfaces that were made again. They
// forward without it; it only saves the first question.
func (r *restorer) announce() {
	for _, rec := range r.again {
		if rec.Uplink && r.st.nicOf(rec) != nil {
			continue // the router's neighbours are asked by the router
		}
		ns, same, err := r.a.placeOf(rec)
		if err == nil && same {
			err = veth.Announce(ns, rec.IfName, rec.MAC, rec.configured())
			_ = ns.Close()
		}
		if err != nil {
			r.a.log.Warn("not announced", "nic", rec.Name, "err", err)
		}
	}
}

// resume goes on with the dataplane that was found, or starts one, and tells it
// the snapshot. It takes ownership of the sockets if it succeeds.
func (p *plane) resume(ctx context.Context, found *dataplane.Client, s *netstack.Snapshot, carried, opened map[uint16]*os.File) error {
	if found == nil {
		return p.Apply(ctx, s, opened)
	}
	was, _ := found.Adopted()
	if was == nil { // its agent was killed before it was told anything
		was = new(netstack.Snapshot)
		p.counted.begin()
	}
	stale := make(map[uint16]bool)
	for port := range portsOf(was) {
		if carried[port] == nil {
			stale[port] = true
		}
	}
	p.mu.Lock()
	p.want = without(was, stale)
	p.sockets.add(carried)
	p.adopt(found, true)
	narrowed := p.want
	p.mu.Unlock()
	// A port's socket can't be exchanged; the port goes and comes back.
	if len(stale) > 0 {
		if err := p.Withdraw(ctx, narrowed); err != nil {
			p.log.Warn("stale ports not withdrawn", "err", err)
		}
	}
	return p.Apply(ctx, s, opened)
}

// createPair makes the veth pair of an attachment, and returns the gateways by
// which it got a default route.
func (a *Agent) createPair(rec *attachmentRecord, n *networkRecord, ns netns.NsHandle) ([]netip.Addr, error) {
	if n == nil {
		return nil, fmt.Errorf("network %s is gone", rec.Network)
	}
	if rec.Tap != nil {
		return []netip.Addr{}, rec.createTap(ns)
	}
	gateways, err := rec.gateways(n, ns)
	if err != nil {
		return nil, err
	}
	pair := veth.PairConfig{
		HostName: rec.hostIfName(), HostNS: a.hostNS, HostIndex: hostIndexBase + int(rec.Port), Name: rec.IfName, NS: ns,
		MAC: rec.MAC, MTU: rec.MTU, Addresses: rec.Addresses, Gateways: gateways, Alias: rec.ID, Table: rec.RouteTable,
		Routes: rec.CNI.inside(n),
	}
	if rec.Bare {
		pair.Addresses = nil
	}
	return gateways, veth.CreatePair(pair)
}

// gateways are those by which an interface gets default routes.
func (a *attachmentRecord) gateways(n *networkRecord, ns netns.NsHandle) ([]netip.Addr, error) {
	switch {
	case a.Bare, a.Uplink, a.CNI.bare():
		return []netip.Addr{}, nil
	case a.RouteTable != 0: // which nobody else's are in
		return n.Gateways, nil
	}
	return freeGateways(ns, n.Gateways)
}

// configured are the addresses that the daemon has set in the container.
func (a *attachmentRecord) configured() []netip.Addr {
	if a.Bare {
		return nil
	}
	return a.addrs()
}
