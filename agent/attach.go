// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/api"
	"sluice/veth"
)

// attach gives a container an interface, or leaves everything as it was.
//
//  1. decide    validate the request, choose every value      (decide.go)
//  2. intend    one transaction: the record, in state creating
//  3. realise   pair, socket, dataplane, announcement
//  4. ready     one transaction
//
// A client that goes away in the middle does not stop it: half an attachment is
// worse than one that nobody asked for any more.
func (a *Agent) attach(ctx context.Context, r *api.AttachRequest) (*api.AttachReply, error) {
	ctx = context.WithoutCancel(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	ns, id, err := a.openPlace(r)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	rec, n, err := a.intend(r, id, nil)
	if err != nil {
		return nil, err
	}
	gateways, err := a.realise(ctx, rec, n, ns)
	if err != nil {
		a.undo(ctx, rec)
		return nil, kernelError(rec, err)
	}
	a.republish(ctx, rec)
	a.log.Info("attached", "nic", rec.Name, "port", rec.Port, "ns", rec.Netns, "network", rec.Network)
	st, err := a.store.read()
	if err != nil {
		return nil, err
	}
	reply := &api.AttachReply{Attachment: st.public(rec), Gateways: gateways, GatewayMAC: n.MAC.String()}
	if st.answersDNS(n) {
		reply.DNS, reply.Search = n.Gateways, st.search(n)
	}
	return reply, nil
}

// openContainer opens the namespace that a request names.
func openContainer(name string) (netns.NsHandle, nsIdentity, error) {
	if name == "" {
		return netns.None(), nsIdentity{}, refuse(api.CodeInvalid, "netns", "missing: the name or path of a network namespace")
	}
	ns, err := veth.OpenNetNS(name)
	switch {
	case errors.Is(err, veth.ErrNoNetNS):
		return ns, nsIdentity{}, refuse(api.CodeNotFound, "netns", "%s", err.Error())
	case errors.Is(err, veth.ErrNotNetNS):
		return ns, nsIdentity{}, refuse(api.CodeInvalid, "netns", "%s", err.Error())
	case err != nil:
		return ns, nsIdentity{}, err
	}
	id, err := identify(ns)
	if err != nil {
		ns.Close()
		return netns.None(), nsIdentity{}, err
	}
	return ns, id, nil
}

// refuseOwn refuses the two namespaces that are no container's. An interface in
// that of the host ends would be a host end to whoever looks next; one in the
// daemon's own would make the host a station of the network.
func (a *Agent) refuseOwn(name string, id nsIdentity) error {
	host, err := identify(a.hostNS)
	if err != nil {
		return err
	}
	if id == host {
		return refuse(api.CodeInvalid, "netns", "%s is the namespace of the host ends", name)
	}
	own, err := ownNetNS()
	if err != nil {
		return err
	}
	if id == own {
		return refuse(api.CodeInvalid, "netns", "%s is the namespace that sluiced runs in", name)
	}
	return nil
}

// intend decides and writes the record down. Nothing but the file has changed.
func (a *Agent) intend(r *api.AttachRequest, ns nsIdentity, cni *cniRecord) (rec *attachmentRecord, n *networkRecord, err error) {
	err = a.store.update(func(t *txn) error {
		if rec, n, err = decide(t.state, r, ns, newID(), cni); err != nil {
			return err
		}
		if err := t.putNetwork(n); err != nil {
			return err
		}
		if err := t.putAttachment(rec); err != nil {
			return err
		}
		t.hold = func(s *state) error { return a.hold(s.with(rec)) }
		return t.publish(rec, &a.sets)
	})
	if rec != nil && len(rec.CNI.ports()) > 0 {
		a.holdCommitted()
	}
	return rec, n, err
}

// newID returns 64 random bits as text: enough never to meet again, and short
// enough to type.
func newID() string {
	var b [8]byte
	rand.Read(b[:])
	return fmt.Sprintf("%x", b)
}

// realise makes what the record says, in the order in which it can be undone
// from the record alone, and returns the gateways of the default routes.
func (a *Agent) realise(ctx context.Context, rec *attachmentRecord, n *networkRecord, ns netns.NsHandle) ([]netip.Addr, error) {
	gateways, err := a.createPair(rec, n, ns)
	if err != nil {
		return nil, err
	}
	if err := a.plug(ctx, rec); err != nil {
		return nil, err
	}
	if rec.Tap != nil { // whose guest announces itself
		return gateways, a.setState(api.StateReady, rec)
	}
	if err := veth.Announce(ns, rec.IfName, rec.MAC, rec.configured()); err != nil {
		return nil, err
	}
	return gateways, a.setState(api.StateReady, rec)
}

// plug opens the packet socket of a host end and gives it to the dataplane.
func (a *Agent) plug(ctx context.Context, rec *attachmentRecord) error {
	f, err := a.openPort(rec)
	if err != nil {
		return err
	}
	a.counters.Port(rec.Port).Reset()
	st, err := a.store.read()
	if err == nil {
		err = a.plane.Apply(ctx, st.snapshot(rec.ID), map[uint16]*os.File{rec.Port: f})
	}
	if err != nil {
		f.Close()
	}
	return err
}

func (a *Agent) setState(s api.State, recs ...*attachmentRecord) error {
	return a.store.update(func(t *txn) error {
		for _, rec := range recs {
			rec.State, rec.Fault = s, ""
			if err := t.putAttachment(rec); err != nil {
				return err
			}
		}
		return nil
	})
}

// undo takes away what exists of an attachment, in the opposite order. What can't
// be taken away now is left to the next start: the record goes last, and stays
// if anything else does.
func (a *Agent) undo(ctx context.Context, rec *attachmentRecord) {
	if err := a.remove(ctx, rec); err != nil {
		a.log.Error("an attachment could not be undone; the next start will", "nic", rec.Name, "port", rec.Port, "err", err)
	}
}

// remove takes attachments away, from any state: the whole of a detach, and of
// an undo. What fails in the middle is done again at the next start.
func (a *Agent) remove(ctx context.Context, recs ...*attachmentRecord) error {
	if err := a.setState(api.StateDeleting, recs...); err != nil {
		return err
	}
	st, err := a.store.read()
	if err != nil {
		return err
	}
	if err := a.plane.Withdraw(ctx, st.snapshot("")); err != nil {
		a.log.Warn("the dataplane has not heard of removed ports yet", "err", err)
	}
	a.republish(ctx, recs...)
	if err := a.removeDevices(recs); err != nil {
		return err
	}
	err = a.store.update(func(t *txn) error { return t.drop(recs) })
	if slices.ContainsFunc(recs, func(rec *attachmentRecord) bool { return len(rec.CNI.ports()) > 0 }) {
		a.holdCommitted()
	}
	return err
}

// removeDevices removes the interfaces of attachments, pairs all at once.
func (a *Agent) removeDevices(recs []*attachmentRecord) error {
	var pairs []string
	for _, rec := range recs {
		a.dropRules(rec)
		if rec.Tap == nil {
			pairs = append(pairs, rec.hostIfName())
		} else if err := a.removeTap(rec); err != nil {
			return err
		}
	}
	return veth.DeletePairs(a.hostNS, pairs...)
}

// drop forgets attachments, whose addresses are in quarantine from now on.
func (t *txn) drop(recs []*attachmentRecord) error {
	for _, rec := range recs {
		if err := t.dropAttachment(rec.ID); err != nil {
			return err
		}
		if err := t.unpublish(rec); err != nil {
			return err
		}
		n := t.state.network(rec.Network)
		if n == nil || n.Leases.Quarantine == 0 {
			continue
		}
		n.release(rec.addrs(), t.state.now)
		if err := t.putNetwork(n); err != nil {
			return err
		}
	}
	return nil
}

// dropRules removes the rules that an attachment made in its container, which don't
// go with its interface. What can't be removed does no harm: nothing is sent from an
// address that is gone.
func (a *Agent) dropRules(rec *attachmentRecord) {
	if rec.Uplink {
		if err := a.host.Remove(context.Background(), rec.IfName); err != nil {
			a.log.Warn("table left on the host", "uplink", rec.Network, "err", err)
		}
	}
	if rec.RouteTable == 0 {
		return
	}
	ns, same, err := sameNamespace(rec.Netns, rec.NS)
	if err == nil && same {
		err = veth.DeleteRules(ns, rec.RouteTable, rec.addrs())
		_ = ns.Close()
	}
	if err != nil {
		a.log.Warn("rules left in the container", "nic", rec.Name, "err", err)
	}
}

// kernelError gives what veth refused the code and field of the request.
func kernelError(rec *attachmentRecord, err error) error {
	switch {
	case errors.Is(err, veth.ErrExist):
		return refuse(api.CodeExists, "ifname", "interface %s exists already in %s", rec.IfName, rec.place())
	case errors.Is(err, veth.ErrConfig):
		return refuse(api.CodeInvalid, "", "%s", err.Error())
	}
	return fmt.Errorf("attach %s: %w", rec.Name, err)
}

// freeGateways returns those of a network's gateways for whose family the
// container has no default route yet: a second interface must not take the
// first one's, and the kernel would refuse it.
func freeGateways(ns netns.NsHandle, gateways []netip.Addr) ([]netip.Addr, error) {
	var h *netlink.Handle
	err := veth.Do(ns, func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netlink in the container: %w", err)
	}
	defer h.Close()
	free := []netip.Addr{}
	for _, g := range gateways {
		family := netlink.FAMILY_V6
		if g.Is4() {
			family = netlink.FAMILY_V4
		}
		routes, err := h.RouteListFiltered(family, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
		if err != nil {
			return nil, fmt.Errorf("routes of the container: %w", err)
		}
		if len(routes) == 0 {
			free = append(free, g)
		}
	}
	return free, nil
}
