// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"sluice/api"
	"sluice/config"
)

// declareIn declares a text in a state file of its own that has what oneNetwork
// has, and returns the state afterwards.
func declareIn(t *testing.T, text string) ([]api.Change, *state, error) {
	t.Helper()
	s, err := openStore(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := oneNetwork()
	before.networks[0].AgeingSeconds, before.networks[0].FDBMax, before.networks[0].FDBMaxPerPort = 300, 4096, 1024
	if err := s.update(func(tx *txn) error {
		return errors.Join(tx.putNetwork(&before.networks[0]), tx.putAttachment(&before.attachments[0]))
	}); err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var changes []api.Change
	declareErr := s.update(func(tx *txn) (err error) {
		changes, err = tx.declare(c, origin{}, new(sets))
		return err
	})
	after, err := s.read()
	if err != nil {
		t.Fatal(err)
	}
	return changes, after, declareErr
}

func TestDeclare(t *testing.T) {
	const same = `{name: blue, subnets: [10.44.0.0/29, "fd44::/64"]}`
	tests := map[string]struct {
		text string
		want []api.Change
	}{
		"nothing new": {`networks: [` + same + `]`, []api.Change{}},
		"one more":    {`networks: [` + same + `, {name: green, subnets: [10.44.0.0/24]}]`, []api.Change{{Action: "add", Network: "green"}}},
		"live changes": {
			`networks: [{name: blue, subnets: [10.44.0.0/29, "fd44::/64"], mtu: 9000, ageing: 60s, fdb: {max: 8192}, echo: true}]`,
			[]api.Change{
				{Action: "change", Network: "blue", Field: "mtu", From: "1500", To: "9000"},
				{Action: "change", Network: "blue", Field: "ageing", From: "300s", To: "60s"},
				{Action: "change", Network: "blue", Field: "fdb.max", From: "4096", To: "8192"},
				{Action: "change", Network: "blue", Field: "echo", From: "false", To: "true"},
			},
		},
		"a larger subnet": {
			`networks: [{name: blue, subnets: [10.44.0.0/24, "fd44::/64"]}]`,
			[]api.Change{{Action: "change", Network: "blue", Field: "subnets", From: "10.44.0.0/29, fd44::/64", To: "10.44.0.0/24, fd44::/64"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			changes, st, err := declareIn(t, tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, changes); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if n := st.network("blue"); n.Port != 1 || n.MAC != oneNetwork().networks[0].MAC {
				t.Errorf("port or gateway's MAC changed: %+v", n)
			}
			if n := st.network("green"); n != nil && (n.Port != 3 || n.MAC.IsZero()) {
				t.Errorf("new network is %+v", n)
			}
		})
	}
}

func TestDeclareRefusesToStrand(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"removal":                {`networks: []`, "network blue can't be removed: attached are red"},
		"subnet without it":      {`networks: [{name: blue, subnets: [10.45.0.0/24, "fd44::/64"]}]`, "network blue can't be changed to subnets 10.45.0.0/24, fd44::/64: attached are red"},
		"family removed":         {`networks: [{name: blue, subnets: ["fd44::/64"]}]`, "network blue can't be changed to subnets fd44::/64: attached are red"},
		"gateway takes its IP":   {`networks: [{name: blue, subnets: [10.44.0.0/29, "fd44::/64"], gateways: [10.44.0.2]}]`, "network blue can't be changed to subnets 10.44.0.0/29, fd44::/64: attached are red"},
		"MTU below its own":      {`networks: [{name: blue, subnets: [10.44.0.0/29, "fd44::/64"], mtu: 1400}]`, "network blue can't be changed to mtu 1400: attached are red"},
		"another gateway":        {`networks: [{name: blue, subnets: [10.44.0.0/29, "fd44::/64"], gateways: [10.44.0.3]}]`, "network blue can't be changed to gateways 10.44.0.3, fd44::1: attached are red"},
		"beside a good addition": {`networks: [{name: green, subnets: [10.0.0.0/24]}]`, "network blue can't be removed: attached are red"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, st, err := declareIn(t, tt.text)
			if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeInUse || e.Message != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if len(st.networks) != 1 || words(st.networks[0].Subnets) != words(oneNetwork().networks[0].Subnets) {
				t.Errorf("networks are now %+v", st.networks)
			}
		})
	}
}

func TestRefusalNamesAFewAttachments(t *testing.T) {
	var all []*attachmentRecord
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
		all = append(all, &attachmentRecord{Name: name})
	}
	err := refuseAttached("blue", "removed", all)
	if want := "network blue can't be removed: attached are a, b, c, d, e, f, g, h, and 2 more"; err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestApplyOverTheSocket(t *testing.T) {
	l := newLab(t)
	l.start()
	ctx := t.Context()
	dry, err := l.api.Apply(ctx, &api.ApplyRequest{YAML: blue, DryRun: true})
	if err != nil || len(dry) != 1 || l.status().Networks != 0 {
		t.Fatalf("dry run: %v, %v, networks %d", dry, err, l.status().Networks)
	}
	if changes := l.apply(blue); !cmp.Equal(changes, dry) {
		t.Errorf("changes %v, the dry run said %v", changes, dry)
	}
	if changes := l.apply(blue); changes == nil || len(changes) != 0 {
		t.Errorf("applied again: %#v", changes)
	}
	_, err = l.api.Apply(ctx, &api.ApplyRequest{YAML: "networks: [{name: blue, subnet: 1}]"})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.CodeInvalid || e.Field != "networks[0].subnet" {
		t.Errorf("unknown field: %v", err)
	}

	red := l.netns()
	l.attach(api.AttachRequest{Netns: red})
	if _, err := l.api.Apply(ctx, &api.ApplyRequest{YAML: "networks: []"}); api.CodeOf(err) != api.CodeInUse {
		t.Errorf("removal: %v", err)
	}
	mac := l.links()[0].MAC
	l.apply(`networks: [{name: blue, subnets: [10.77.0.0/24, "fd77::/64"], mtu: 9000, ageing: 10s, echo: true}]`)
	l.pings(red, "10.77.0.1", "fd77::1")
	if l.links()[0].MAC != mac {
		t.Error("the container's MAC changed")
	}
	nets, err := l.api.Networks(ctx, false)
	if err != nil || nets[0].MTU != 9000 || nets[0].AgeingSeconds != 10 || !nets[0].Echo {
		t.Errorf("networks %+v, %v", nets, err)
	}
	if _, err := l.api.Detach(ctx, &api.DetachRequest{Name: red}); err != nil {
		t.Fatal(err)
	}
	l.apply("networks: []")
	if s := l.status(); s.Networks != 0 {
		t.Errorf("networks left: %+v", s)
	}
}

func TestStoreKeepsGenerationAndRefusesOtherVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	last := uint64(0)
	for range 3 {
		s, err := openStore(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.update(func(tx *txn) error { return tx.putNetwork(&networkRecord{Name: "n"}) }); err != nil {
			t.Fatal(err)
		}
		st, err := s.read()
		if err != nil || st.generation <= last || len(st.networks) != 1 {
			t.Fatalf("generation %d after %d, %+v, %v", st.generation, last, st, err)
		}
		last = st.generation
		if _, err := openStore(path); !errors.Is(err, ErrLocked) {
			t.Errorf("second open: %v, want ErrLocked", err)
		}
		s.Close()
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketMeta)).Put([]byte("version"), []byte("99"))
	}); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := openStore(path); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("layout 99: %v", err)
	}
}

func TestSnapshotHoldsWhatForwards(t *testing.T) {
	st := oneNetwork()
	st.attachments = append(st.attachments,
		attachmentRecord{ID: "c", Name: "c", Network: "blue", Port: 3, MAC: [6]byte{2, 3}, MTU: 1500, State: api.StateCreating},
		attachmentRecord{ID: "d", Name: "d", Network: "blue", Port: 4, MAC: [6]byte{2, 4}, MTU: 1500, State: api.StateDeleting})
	for also, want := range map[string][]uint16{"": {2}, "c": {2, 3}} {
		s := st.snapshot(also)
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
		var got []uint16
		for _, p := range s.Namespaces[0].Networks[0].Ports {
			got = append(got, p.Index)
		}
		if !cmp.Equal(got, want) {
			t.Errorf("with %q: ports %v, want %v", also, got, want)
		}
		if a := s.Namespaces[0].Networks[0].Addresses; a[0] != netip.MustParsePrefix("10.44.0.1/29") {
			t.Errorf("gateway is %v", a)
		}
	}
	if s := without(st.snapshot("c"), map[uint16]bool{2: true}); len(portsOf(s)) != 1 || len(portsOf(st.snapshot("c"))) != 2 {
		t.Errorf("without port 2: %+v", s)
	}
}
