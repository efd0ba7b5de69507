// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/vishvananda/netns"

	"sluice/api"
	"sluice/veth"
)

// Theory of operation.
//
// An attachment with a tapRecord has a tap device instead of a pair, for a virtual
// machine, in the namespace that the machine's monitor runs in: a container's, or the
// daemon's own. There is no host end; the port's socket is on the device itself. What
// is in the guest is the guest's business, so nothing is configured, and the addresses
// are told by DHCP or by whoever makes the guest.
//
// The device outlives agent, dataplane and monitor. If somebody removes it, the
// attachment is over, as one whose pair has gone.
//
// Its namespace is another matter: the port's socket is in it, and keeps it alive when
// nobody else does. So it is looked at now and then whether it is still where it was.

// tapsEvery is how often.
const tapsEvery = 3 * time.Second

// hasTaps reports whether there are tap devices to look at.
func (a *Agent) hasTaps() bool {
	st, err := a.store.read()
	return err == nil && st.find(func(r *attachmentRecord) bool { return r.Tap != nil }) != nil
}

// tapRecord is what an attachment has that is a tap device.
type tapRecord struct {
	Owner int `json:"owner"` // who may open it beside root; less than 0: nobody
	Group int `json:"group"`
}

// decideTap takes what is special of a tap device.
func decideTap(r *api.AttachRequest, rec *attachmentRecord) error {
	if r.Tap == nil {
		return nil
	}
	switch {
	case r.IfName == "":
		return refuse(api.CodeInvalid, "ifname", "missing: the name of the tap device")
	case r.RouteTable != 0:
		return refuse(api.CodeInvalid, "route_table", "a tap device has no routes")
	case r.MTU > veth.MaxTapMTU:
		return refuse(api.CodeOutOfRange, "mtu", "%d is out of range; a tap device takes at most %d", rec.MTU, veth.MaxTapMTU)
	}
	rec.Tap = &tapRecord{Owner: -1, Group: -1}
	for _, id := range []struct {
		field string
		said  *uint32
		into  *int
	}{{"tap.owner", r.Tap.Owner, &rec.Tap.Owner}, {"tap.group", r.Tap.Group, &rec.Tap.Group}} {
		if id.said == nil {
			continue
		}
		if *id.said > math.MaxInt32 {
			return refuse(api.CodeOutOfRange, id.field, "%d is out of range", *id.said)
		}
		*id.into = int(*id.said)
	}
	rec.Bare, rec.MTU = true, min(rec.MTU, veth.MaxTapMTU)
	return nil
}

// onHost reports whether an attachment is in the daemon's own namespace.
func (a *attachmentRecord) onHost() bool { return a.Uplink || a.Tap != nil && a.Netns == "" }

// place is the namespace of an attachment in words.
func (a *attachmentRecord) place() string {
	if a.Netns == "" {
		return "the namespace of sluiced"
	}
	return a.Netns
}

// openPlace opens the namespace that a request names, which may be the daemon's own if
// it is for a tap device.
func (a *Agent) openPlace(r *api.AttachRequest) (netns.NsHandle, nsIdentity, error) {
	if r.Tap == nil || r.Netns != "" {
		ns, id, err := openContainer(r.Netns)
		if err == nil {
			if err = a.refuseOwn(r.Netns, id); err != nil {
				ns.Close()
			}
		}
		return ns, id, err
	}
	ns, _, err := a.placeOf(&attachmentRecord{Tap: new(tapRecord)})
	if err != nil {
		return ns, nsIdentity{}, err
	}
	id, err := identify(ns)
	if err != nil {
		ns.Close()
	}
	return ns, id, err
}

// createTap makes the device of an attachment.
func (a *attachmentRecord) createTap(ns netns.NsHandle) error {
	return veth.CreateTap(veth.TapConfig{
		Name: a.IfName, NS: ns, MTU: a.MTU, Owner: a.Tap.Owner, Group: a.Tap.Group, Alias: a.ID,
	})
}

// openPort opens the packet socket of an attachment, on its host end or its tap device.
func (a *Agent) openPort(rec *attachmentRecord) (*os.File, error) {
	if rec.Tap == nil {
		o, err := a.socketOptions(rec)
		if err != nil {
			return nil, err
		}
		return openPort(a.hostNS, rec.hostIfName(), rec.Name, o)
	}
	ns, same, err := a.placeOf(rec)
	if err != nil {
		return nil, err
	}
	if !same {
		return nil, errNamespaceGone
	}
	defer ns.Close()
	return openPort(ns, rec.IfName, rec.Name, veth.SocketOptions{})
}

// socketOptions are those of the socket on a host end: an interface of the host's has a
// queue of its own.
func (a *Agent) socketOptions(rec *attachmentRecord) (o veth.SocketOptions, err error) {
	if !rec.Uplink {
		return o, nil
	}
	st, err := a.store.read()
	if err != nil {
		return o, err
	}
	n := st.network(rec.Network)
	o.Queued = n != nil && n.Uplink != nil && n.Uplink.NIC != nil
	return o, nil
}

// removeTap removes the device of a tap attachment.
func (a *Agent) removeTap(rec *attachmentRecord) error {
	ns, same, err := a.placeOf(rec)
	if err != nil || !same {
		return err
	}
	defer ns.Close()
	return veth.DeleteTap(ns, rec.IfName, rec.ID)
}

// errTaken is why a tap device can't be restored.
var errTaken = errors.New("another interface has its name")

// readyTap restores the device and the socket of a tap attachment.
func (r *restorer) readyTap(rec *attachmentRecord) error {
	ns, same, err := r.a.placeOf(rec)
	if err != nil {
		return err
	}
	if !same {
		return errNamespaceGone
	}
	defer ns.Close()
	end, err := veth.FindTap(ns, rec.IfName)
	switch {
	case errors.Is(err, veth.ErrNotExist):
		if err := rec.createTap(ns); err != nil {
			return err
		}
		return r.open(rec)
	case err != nil:
		return err
	case end.Alias != rec.ID:
		return fmt.Errorf("tap %s: %w", rec.IfName, errTaken)
	}
	if f := r.files[rec.Port]; f != nil && r.was[rec.Port].MAC == rec.MAC && boundTo(f, end.Index) {
		r.carried[rec.Port] = f
		delete(r.files, rec.Port)
		return nil
	}
	return r.open(rec)
}

// deviceGone reports whether the device of a tap attachment is not there any more. What
// can't be found out is taken to be there.
func (a *Agent) deviceGone(rec *attachmentRecord) bool {
	ns, same, err := a.placeOf(rec)
	if err != nil {
		return false
	}
	if !same {
		return true
	}
	defer ns.Close()
	end, err := veth.FindTap(ns, rec.IfName)
	return errors.Is(err, veth.ErrNotExist) || err == nil && end.Alias != rec.ID
}
