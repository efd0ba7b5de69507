// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// TableID is the number of a routing table. Zero is not stated: the table that
// ip-route(8) takes then, mostly TableMain.
type TableID uint32

// The tables that every namespace has.
const (
	TableDefault TableID = 253
	TableMain    TableID = 254
	TableLocal   TableID = 255
)

// Names are the names of tables, what /etc/iproute2/rt_tables is to ip(8). They
// exist in text only: a Set knows numbers. Parsing and printing are its methods.
// A nil *Names is usable and knows default, main and local.
type Names struct {
	ids   map[string]TableID
	names map[TableID]string
}

// NewNames makes Names with tables of the user's beside the three that are always
// there. A name must not look like a number, a number has one name.
func NewNames(tables map[string]TableID) (*Names, error) {
	n := &Names{ids: maps.Clone(tables), names: map[TableID]string{}}
	for name, id := range tables {
		if err := checkTableName(name, id); err != nil {
			return nil, err
		}
		if other, taken := n.names[id]; taken {
			return nil, fmt.Errorf("table %d has two names, %q and %q", id, min(name, other), max(name, other))
		}
		n.names[id] = name
	}
	return n, nil
}

func checkTableName(name string, id TableID) error {
	_, err := strconv.ParseUint(name, 0, 64)
	switch {
	case name == "" || err == nil || strings.ContainsFunc(name, unfitForName):
		return fmt.Errorf("table name %q: want letters, digits, '-', '_' or '.', and no number", name)
	case id == 0 || id >= TableDefault && id <= TableLocal || wellKnown(name) != 0 || name == "all":
		return fmt.Errorf("table %d, name %q: reserved", id, name)
	}
	return nil
}

func unfitForName(r rune) bool {
	const fit = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	return !strings.ContainsRune(fit, r)
}

// Table finds a table by its name or number.
func (n *Names) Table(word string) (TableID, bool) {
	if id := wellKnown(word); id != 0 {
		return id, true
	}
	if n != nil {
		if id, ok := n.ids[word]; ok {
			return id, true
		}
	}
	id, err := strconv.ParseUint(word, 0, 32)
	return TableID(id), err == nil && id != 0
}

// TableName is the table's name, or its number if it has none.
func (n *Names) TableName(id TableID) string {
	switch id {
	case TableDefault:
		return "default"
	case TableMain:
		return "main"
	case TableLocal:
		return "local"
	}
	if n != nil {
		if name, ok := n.names[id]; ok {
			return name
		}
	}
	return strconv.FormatUint(uint64(id), 10)
}

// wellKnown is the table of a name that needs no Names; 0 if there is none.
func wellKnown(name string) TableID {
	switch name {
	case "default":
		return TableDefault
	case "main":
		return TableMain
	case "local":
		return TableLocal
	}
	return 0
}
