// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"errors"
	"maps"
)

// Device is where packets come in and go out: a network's bridge or an uplink of
// the namespace. Routes and rules name it, packets carry its index. A port of a
// bridge is one for the sake of rules: packets carry it beside the bridge's index.
//
// One device is always there and needs no entry: `lo`, index 0, the namespace
// itself. A query with IIF 0 is for a packet that the namespace's own stack
// sends, and `iif lo` in a rule matches it, as in ip-rule(8).
type Device struct {
	Name  string  `json:"name"`
	Index uint16  `json:"index"`          // 1..65535, unique in the Set
	Table TableID `json:"vrf,omitempty"`  // the table of its VRF, for `l3mdev` rules; 0: none
	Down  bool    `json:"down,omitempty"` // its next hops are passed over
	// Port: it is a container's port, which `iif` of a rule may name. No route leads over it.
	Port bool `json:"port,omitempty"`
}

const (
	loopback   = "lo" // the device of index 0
	maxDevName = 32   // a network may have a name that is longer than the kernel allows
)

// noDevice is the index that a rule binds to when its device does not exist; any
// is the one of a rule that does not care.
const (
	noDevice  int32 = -1
	anyDevice int32 = -2
)

func (d *Device) check() error {
	switch {
	case !validDevName(d.Name) || d.Name == loopback:
		return errors.New("invalid device name " + quote(d.Name))
	case d.Index == 0:
		return errors.New("device " + quote(d.Name) + " has no index")
	}
	return nil
}

// validDevName is the kernel's dev_valid_name.
func validDevName(name string) bool {
	if name == "" || len(name) > maxDevName || name == "." || name == ".." {
		return false
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == '/' || c == ':' {
			return false
		}
	}
	return true
}

// devices are the devices of a Set, by both of what they are known by.
type devices struct {
	byName  map[string]Device
	byIndex map[uint16]string
}

func (d devices) clone() devices {
	return devices{byName: maps.Clone(d.byName), byIndex: maps.Clone(d.byIndex)}
}

func (d devices) put(dev Device) {
	d.drop(dev.Name)
	d.byName[dev.Name], d.byIndex[dev.Index] = dev, dev.Name
}

func (d devices) drop(name string) {
	delete(d.byIndex, d.byName[name].Index)
	delete(d.byName, name)
}

// index returns the index of a device.
func (d devices) index(name string) (uint16, bool) {
	dev, ok := d.byName[name]
	return dev.Index, ok || name == loopback
}

// bind is the index that a rule's device word stands for.
func (d devices) bind(name string) int32 {
	if name == "" {
		return anyDevice
	}
	if index, ok := d.index(name); ok {
		return int32(index)
	}
	return noDevice
}
