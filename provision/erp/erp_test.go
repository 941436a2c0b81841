package erp

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

var ctx = context.Background()

// fakeERP answers each call by the first matching rule.
type fakeERP struct {
	t *testing.T

	mu    sync.Mutex // guards what follows
	rules map[string]string
	seen  []string
}

const refused = `400 {"error":"Unknown Action"}`

// newFakeERP starts a server. Rules map "cat.action" or "cat.action?arg=value"
// to "status body"; a longer match wins.
func newFakeERP(t *testing.T, rules map[string]string) (*fakeERP, *userside.Client) {
	t.Helper()
	e := &fakeERP{t: t, rules: rules}
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	c, err := userside.New(userside.Options{URL: s.URL + "/api.php", Key: "k-12345", Timeout: 5 * time.Second, Location: time.UTC,
		ERPVersion: userside.Version{Major: 3, Minor: 19, Stage: userside.StageRelease}})
	require.NoError(t, err)
	t.Cleanup(c.CloseIdle)
	return e, c
}

func (e *fakeERP) set(rule, answer string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rules[rule] = answer
}

// calls returns and forgets what was asked: "cat.action?args".
func (e *fakeERP) calls() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.seen
	e.seen = nil
	return out
}

func (e *fakeERP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	args, err := url.ParseQuery(string(body))
	assert.NoError(e.t, err)
	for k, v := range r.URL.Query() {
		args[k] = v
	}
	name := args.Get("cat") + "." + args.Get("action")
	args.Del("cat")
	args.Del("action")
	args.Del("key")
	call := name + "?" + strings.ReplaceAll(args.Encode(), "%2C", ",")
	e.mu.Lock()
	e.seen = append(e.seen, call)
	best := ""
	answer := refused
	for rule, a := range e.rules {
		ok := rule == name || strings.Contains(rule, "?") && strings.HasPrefix(call+"&", rule+"&")
		if ok && len(rule) > len(best) {
			best, answer = rule, a
		}
	}
	e.mu.Unlock()
	status, text, _ := strings.Cut(answer, " ")
	code := 0
	_, _ = fmt.Sscan(status, &code)
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

// good is an ERP of three customers on two switches.
func good() map[string]string {
	return map[string]string{
		"customer.get_ip_port_device_commutation": `200 {"result":"OK","data":[
			{"customer_id":1,"ip":"1681915905","mac":"00005e005301","device_id":10,"port":1},
			{"customer_id":2,"ip":"1681915906","mac":"00005e005302","device_id":10,"port":2},
			{"customer_id":3,"ip":"1681915907","mac":"","device_id":11,"port":1},
			{"customer_id":3,"ip":"1681915908","mac":"00005e005304"}]}`,
		"customer.get_customers_id?state_id=2": `200 {"result":"OK","data":[1]}`,
		"customer.get_customers_id?state_id=1": `200 {"result":"OK","data":[2]}`,
		"customer.get_customers_id?state_id=0": `200 {"result":"OK","data":[3]}`,
		"device.get_data": `200 {"result":"OK","data":{
			"10":{"id":10,"name":"sw-10","host":"192.0.2.10","mac":"00005E00530A","ifaces":{"1":{"ifNumber":1,"ifName":"ge-0/0/1"},"2":{"ifNumber":2,"ifName":"ge-0/0/2"}}},
			"11":{"id":11,"name":"sw-11","host":"192.0.2.11","mac":"00005E00530B","ifaces":{"1":{"ifNumber":1,"ifName":"Gi0/1"}}}}}`,
		"commutation.get_data?object_type=customer": `200 {"result":"OK","data":{
			"1":[{"object_type":"switch","object_id":10,"interface":1}],
			"2":[{"object_type":"switch","object_id":10,"interface":2},{"object_type":"cross","object_id":4,"interface":9}],
			"3":[{"object_type":"fiber","object_id":77,"interface":1}]}}`,
		"commutation.get_data?is_finish_data=1&object_id=3": `200 {"result":"OK","data":{"0":{"object_type":"fiber","object_id":77},
			"finish":{"object_type":"switch","object_id":11,"interface":1}}}`,
		"customer.get_data?customer_id=1,2,3": `200 {"result":"OK","data":{
			"1":{"id":1,"state_id":2,"ip_mac":{"1681915905":{"ip":"1681915905","mac":"00005e005301"}}},
			"2":{"id":2,"state_id":1,"ip_mac":{"1681915906":{"ip":"1681915906","mac":"00005e005302"}}},
			"3":{"id":3,"state_id":0,"ip_mac":{"1681915907":{"ip":"1681915907","mac":""},"9":{"ip_net":"100.64.8.0/24"}}}}}`,
	}
}

var (
	mac1 = provision.MAC{0, 0, 0x5e, 0, 0x53, 1}
	mac2 = provision.MAC{0, 0, 0x5e, 0, 0x53, 2}
	mac4 = provision.MAC{0, 0, 0x5e, 0, 0x53, 4}
	macA = provision.MAC{0, 0, 0x5e, 0, 0x53, 10}
	macB = provision.MAC{0, 0, 0x5e, 0, 0x53, 11}

	row1 = provision.Line{Subscriber: 1, Addresses: provision.Hosts4(addr(1)), MAC: mac1, Device: 10, Port: 1, PortName: "ge-0/0/1"}
	row2 = provision.Line{Subscriber: 2, Addresses: provision.Hosts4(addr(2)), MAC: mac2, Device: 10, Port: 2, PortName: "ge-0/0/2"}
	row3 = provision.Line{Subscriber: 3, Addresses: provision.Hosts4(addr(3)), Device: 11, Port: 1, PortName: "Gi0/1"}
	row4 = provision.Line{Subscriber: 3, Addresses: provision.Hosts4(addr(4)), MAC: mac4}

	devices = []provision.Device{
		{ID: 10, Name: "sw-10", MAC: macA, IP: netip.MustParseAddr("192.0.2.10")},
		{ID: 11, Name: "sw-11", MAC: macB, IP: netip.MustParseAddr("192.0.2.11")},
	}
	subscribers = []provision.Subscriber{{ID: 1, State: provision.StateActive}, {ID: 2, State: provision.StatePause}, {ID: 3, State: provision.StateStop}}
)

func addr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, n}) }

func newFetcher(t *testing.T, c *userside.Client, o Options) (*Fetcher, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	f, err := New(c, o)
	require.NoError(t, err)
	return f, &log
}

// fetch returns an Input in a fixed order.
func fetch(t *testing.T, f *Fetcher, prev *provision.Snapshot) provision.Input {
	t.Helper()
	in, err := f.Fetch(ctx, prev)
	require.NoError(t, err)
	sorted(in)
	return in
}

// ipOf returns the address of a line that has one or none.
func ipOf(l provision.Line) netip.Addr {
	for ip := range l.Hosts4() {
		return ip
	}
	return netip.Addr{}
}

func sorted(in provision.Input) {
	slices.SortFunc(in.Subscribers, func(a, b provision.Subscriber) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(in.Lines, func(a, b provision.Line) int { return ipOf(a).Compare(ipOf(b)) })
	slices.SortFunc(in.Devices, func(a, b provision.Device) int { return cmp.Compare(a.ID, b.ID) })
}

func kinds(in provision.Input) map[provision.ProblemKind]int {
	out := map[provision.ProblemKind]int{}
	for _, p := range in.Problems {
		out[p.Kind]++
	}
	return out
}

func states(in provision.Input) map[provision.SubscriberID]string {
	out := map[provision.SubscriberID]string{}
	for _, s := range in.Subscribers {
		out[s.ID] = s.State.String()
	}
	return out
}

var _ syncer.Fetcher = (*Fetcher)(nil)

func TestFetchDirect(t *testing.T) {
	e, c := newFakeERP(t, good())
	f, log := newFetcher(t, c, Options{Memory: zeroCompared()})
	before := time.Now()
	in := fetch(t, f, nil)
	require.Equal(t, provision.SourceDirect, in.Source)
	require.Equal(t, []provision.Line{row1, row2, row3, row4}, in.Lines)
	require.Equal(t, subscribers, in.Subscribers)
	require.Equal(t, devices, in.Devices)
	require.Empty(t, in.Problems)
	require.WithinRange(t, in.FetchedAt, before, time.Now())
	require.Equal(t, []string{"customer.get_ip_port_device_commutation?", "customer.get_customers_id?state_id=2", "customer.get_customers_id?state_id=1",
		"customer.get_customers_id?state_id=0", "device.get_data?is_hide_access_data=1&object_type=all"}, e.calls())
	fetch(t, f, nil)
	require.Equal(t, 1, strings.Count(log.String(), "source of bindings chosen"), "logged on change only")
}

func TestFetchComposed(t *testing.T) {
	for _, mode := range []Mode{ModeComposed, ModeAuto} {
		t.Run(string(mode), func(t *testing.T) {
			rules := good()
			rules["customer.get_ip_port_device_commutation"] = refused
			e, c := newFakeERP(t, rules)
			f, log := newFetcher(t, c, Options{Bindings: mode})
			in := fetch(t, f, nil)
			require.Equal(t, provision.SourceComposed, in.Source)
			require.Equal(t, []provision.Line{row1, row2, row3}, in.Lines)
			require.Equal(t, subscribers, in.Subscribers)
			require.Equal(t, devices, in.Devices)
			require.Empty(t, in.Problems)
			calls := e.calls()
			require.Equal(t, mode == ModeAuto, slices.Contains(calls, "customer.get_ip_port_device_commutation?"))
			require.Equal(t, mode == ModeAuto, strings.Contains(log.String(), "Unknown Action"), log.String())
		})
	}
}

// What makes auto fall back, and what must not.
func TestFallback(t *testing.T) {
	tests := map[string]struct {
		answer string
		falls  bool
	}{
		"action is missing":            {refused, true},
		"action is missing, old":       {`200 {"Result":"ERROR","ErrorText":"unknown action"}`, true},
		"permission denied":            {`403 {"error":"section"}`, true},
		"unknown shape":                {`200 {"result":"OK","data":[{"alpha":1}]}`, true},
		"empty":                        {`200 {"result":"OK","data":[]}`, true},
		"server error":                 {`500 oops`, false},
		"bad gateway":                  {`502 <html></html>`, false},
		"too many requests":            {`429 x`, false},
		"login page":                   {`200 <html>login</html>`, false},
		"truncated":                    {`200 {"result":"OK","data":[{"customer_id":1`, false},
		"page with 404: a wrong URL":   {`404 <html>not found</html>`, false},
		"redirect":                     {`302 x`, false},
		"warning text before the JSON": {`200 Warning: memory {"result":"OK","data":[]}`, false},
	}
	for name, tt := range tests {
		for _, mode := range []Mode{ModeAuto, ModeDirect} {
			t.Run(name+" "+string(mode), func(t *testing.T) {
				rules := good()
				rules["customer.get_ip_port_device_commutation"] = tt.answer
				e, c := newFakeERP(t, rules)
				f, _ := newFetcher(t, c, Options{Bindings: mode})
				in, err := f.Fetch(ctx, nil)
				switch {
				case strings.HasPrefix(name, "empty") && mode == ModeDirect:
					require.NoError(t, err)
					require.Equal(t, provision.SourceDirect, in.Source)
					require.Empty(t, in.Lines)
				case tt.falls && mode == ModeAuto:
					require.NoError(t, err)
					require.Equal(t, provision.SourceComposed, in.Source)
				default:
					require.ErrorContains(t, err, "read bindings")
					require.Zero(t, in)
					require.Len(t, e.calls(), 1, "nothing else is asked")
				}
			})
		}
	}
}

// A refusal of something else than the bindings is no reason to compose.
func TestNoFallbackAfterRowsWereRead(t *testing.T) {
	rules := good()
	rules["customer.get_customers_id?state_id=2"] = `403 {"error":"section"}`
	e, c := newFakeERP(t, rules)
	f, _ := newFetcher(t, c, Options{})
	_, err := f.Fetch(ctx, nil)
	require.ErrorIs(t, err, userside.ErrPermission)
	require.ErrorContains(t, err, "read customers in state active")
	require.Len(t, e.calls(), 2)
}

func TestBothSourcesFail(t *testing.T) {
	rules := good()
	rules["customer.get_ip_port_device_commutation"] = refused
	rules["commutation.get_data?object_type=customer"] = `403 {"error":"section not allowed"}`
	_, c := newFakeERP(t, rules)
	f, _ := newFetcher(t, c, Options{})
	_, err := f.Fetch(ctx, nil)
	require.ErrorContains(t, err, "section not allowed")
	require.ErrorContains(t, err, "Unknown Action", "why the direct source is not used")
	require.ErrorIs(t, err, userside.ErrPermission)
}

func TestDirectIsTriedAgain(t *testing.T) {
	rules := good()
	direct := rules["customer.get_ip_port_device_commutation"]
	rules["customer.get_ip_port_device_commutation"] = refused
	e, c := newFakeERP(t, rules)
	f, log := newFetcher(t, c, Options{RetryDirect: 3})
	tried := func() bool { return slices.Contains(e.calls(), "customer.get_ip_port_device_commutation?") }
	var got []bool
	var left []int
	for range 8 {
		require.Equal(t, provision.SourceComposed, fetch(t, f, nil).Source)
		got, left = append(got, tried()), append(left, f.Fallback().Fetches)
	}
	require.Equal(t, []int{1, 2, 1, 3, 2, 1, 3, 2}, left, "soon at first, then ever less often")
	require.Contains(t, f.Fallback().Reason, "Unknown Action")
	require.False(t, f.Fallback().Since.IsZero())
	require.Equal(t, []bool{true, true, false, true, false, false, true, false}, got)
	require.Equal(t, 1, strings.Count(log.String(), "bindings are composed"))
	e.set("customer.get_ip_port_device_commutation", `500 x`)
	fetch(t, f, nil)
	_, err := f.Fetch(ctx, nil)
	require.Error(t, err, "the direct source answers, but is down")
	e.set("customer.get_ip_port_device_commutation", direct)
	require.Equal(t, provision.SourceDirect, fetch(t, f, nil).Source)
	require.Equal(t, provision.SourceDirect, fetch(t, f, nil).Source)
	require.Contains(t, log.String(), "source=direct was=composed")
	e.set("customer.get_ip_port_device_commutation", refused)
	require.Equal(t, provision.SourceComposed, fetch(t, f, nil).Source, "and back")
	e.set("customer.get_ip_port_device_commutation", direct)
	require.Equal(t, provision.SourceDirect, fetch(t, f, nil).Source, "one refusal costs one fetch")
}

// Composed bindings tell no VLAN, and not always both names of a port: while they stand in for the direct ones those in use stay.
func TestComposedKeepsWhatItDoesNotTell(t *testing.T) {
	const direct = "customer.get_ip_port_device_commutation"
	rules := good()
	rules[direct] = `200 {"result":"OK","data":[
		{"customer_id":1,"ip":"1681915905","mac":"00005e005301","device_id":10,"port":1,"vlan":101},
		{"customer_id":2,"ip":"1681915906","mac":"00005e005302","vlan":102},
		{"customer_id":2,"ip":"1681915907","vlan":103},
		{"customer_id":3,"mac":"00005e005303","vlan":104}]}`
	rules["device.get_data"] = `200 {"result":"OK","data":{"10":{"id":10,"name":"sw-10","mac":"00005E00530A","ifaces":{"1":{"ifNumber":1,"ifName":"ge-0/0/1"}}}}}`
	rules["commutation.get_data?object_type=customer"] = `200 {"result":"OK","data":{"1":[{"object_type":"switch","object_id":10,"interface":1}]}}`
	card := func(addresses string) string {
		return `200 {"result":"OK","data":{
			"1":{"id":1,"state_id":2,"ip_mac":{"1681915905":{"ip":"1681915905","mac":"00005e005301"}}},
			"2":{"id":2,"state_id":1,"ip_mac":{` + addresses + `}},
			"3":{"id":3,"state_id":0}}}`
	}
	const two = `"1681915906":{"ip":"1681915906","mac":"00005e005302"},"1681915907":{"ip":"1681915907"}`
	rules["customer.get_data?customer_id=1,2,3"] = card(two)
	vacant := func(in provision.Input) *provision.Snapshot {
		in.KeepVacant = true
		s, _ := provision.Build(in)
		return s
	}
	of := func(s *provision.Snapshot) (vlans []int) {
		for vlan := range uint16(200) {
			if l, shared := s.ByVLAN(vlan); !shared && l.Len() == 1 {
				vlans = append(vlans, int(vlan))
			}
		}
		return vlans
	}
	e, c := newFakeERP(t, rules)
	f, _ := newFetcher(t, c, Options{RetryDirect: 1})
	use := vacant(fetch(t, f, nil))
	require.Equal(t, []int{101, 102, 103, 104}, of(use))
	e.set(direct, `403 {"error":"section"}`)
	for range 3 { // each by what the one before kept
		use = vacant(fetch(t, f, use))
		require.Equal(t, provision.SourceComposed, use.Source())
		require.Equal(t, []int{101, 102, 103, 104}, of(use))
	}
	require.Equal(t, 1, use.Counts().Seats)

	e.set("device.get_data", `200 {"result":"OK","data":{"10":{"id":10,"name":"sw-10","mac":"00005E00530A"}}}`)
	use = vacant(fetch(t, f, use))
	require.Equal(t, 1, use.ByPortName(10, []byte("ge-0/0/1")).Len())
	e.set("commutation.get_data?object_type=customer", `200 {"result":"OK","data":{"1":[{"object_type":"switch","object_id":10,"interface":2}]}}`)
	e.set("customer.get_data?customer_id=1,2,3", card(two+`,"1681915908":{"ip":"1681915908"}`))
	moved := vacant(fetch(t, f, use))
	require.Equal(t, []int{102, 103, 104}, of(moved), "another port has a VLAN of its own, and nobody knows that of a new address")
	require.Empty(t, moved.ByPort(10, 2).At(0).PortName)

	forGood, _ := newFetcher(t, c, Options{Bindings: ModeComposed})
	require.Empty(t, of(vacant(fetch(t, forGood, use))), "bindings that are always composed")
}

// Where nothing is in use any failed call of states fails the fetch: nothing is guessed. One of devices is told.
func TestFetchFails(t *testing.T) {
	for _, mode := range []Mode{ModeDirect, ModeComposed} {
		for rule, answer := range map[string]string{
			"customer.get_customers_id?state_id=2": `500 x`, "customer.get_customers_id?state_id=1": `200 <html>`,
			"customer.get_customers_id?state_id=0": `502 x`,
		} {
			t.Run(string(mode)+" "+rule, func(t *testing.T) {
				rules := good()
				rules[rule] = answer
				_, c := newFakeERP(t, rules)
				f, _ := newFetcher(t, c, Options{Bindings: mode})
				in, err := f.Fetch(ctx, nil)
				require.Error(t, err)
				require.Zero(t, in)
			})
		}
		rules := good()
		rules["device.get_data"] = `500 x`
		_, c := newFakeERP(t, rules)
		f, _ := newFetcher(t, c, Options{Bindings: mode})
		in, err := f.Fetch(ctx, nil)
		require.NoError(t, err)
		require.True(t, in.DevicesUnread)
		require.Equal(t, syncer.JudgedFailed, statusOf(t, f, syncer.SourceDevices).Judgement)
	}
	for rule, answer := range map[string]string{
		"commutation.get_data?object_type=customer": `500 x`, "customer.get_data?customer_id=1,2,3": `200 {"result":"OK","data":{"1":`,
		"commutation.get_data?is_finish_data=1&object_id=3": `500 x`,
	} {
		t.Run("composed "+rule, func(t *testing.T) {
			rules := good()
			rules[rule] = answer
			_, c := newFakeERP(t, rules)
			f, _ := newFetcher(t, c, Options{Bindings: ModeComposed})
			_, err := f.Fetch(ctx, nil)
			require.Error(t, err)
		})
	}
}

func TestStatesStop(t *testing.T) {
	const zero = "customer.get_customers_id?state_id=0"
	const withBalance = "customer.get_customers_id?balance_from=-1000000000000&state_id=0"
	const card3, stopped3 = "customer.get_data?customer_id=3", `200 {"result":"OK","data":{"id":3,"state_id":0}}`
	all := map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "stop"}
	tests := map[string]struct {
		rules    map[string]string
		want     map[provision.SubscriberID]string
		problems map[provision.ProblemKind]int
	}{
		"zero is a condition":                       {nil, all, nil},
		"zero is ignored: everybody":                {map[string]string{zero: `200 {"result":"OK","data":[1,2,3]}`, card3: stopped3}, all, nil},
		"zero alone is refused":                     {map[string]string{zero: refused, withBalance: `200 {"result":"OK","data":[3]}`}, all, nil},
		"zero alone is refused, then ignored":       {map[string]string{zero: refused, withBalance: `200 {"result":"OK","data":[3,2,1]}`, card3: stopped3}, all, nil},
		"one was stopped between two calls":         {map[string]string{zero: `200 {"result":"OK","data":[2,3]}`}, map[provision.SubscriberID]string{1: "active", 2: "stop", 3: "stop"}, nil},
		"refused twice: asked by get_data":          {map[string]string{zero: refused, withBalance: refused, "customer.get_data?customer_id=3": `200 {"result":"OK","data":{"id":3,"state_id":"0"}}`}, all, nil},
		"resumed between two calls: asked":          {map[string]string{zero: `200 {"result":"OK"}`, "customer.get_data?customer_id=3": `200 {"result":"OK","data":{"id":3,"state_id":2}}`}, map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "active"}, nil},
		"a state of its own":                        {map[string]string{zero: `200 {"result":"OK"}`, "customer.get_data?customer_id=3": `200 {"result":"OK","data":{"id":3,"state_id":5}}`}, map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "unknown"}, map[provision.ProblemKind]int{provision.ProblemUnknownState: 1}},
		"no state at all":                           {map[string]string{zero: `200 {"result":"OK"}`, "customer.get_data?customer_id=3": `200 {"result":"OK","data":{"id":3}}`}, map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "unknown"}, map[provision.ProblemKind]int{provision.ProblemUnknownState: 1}},
		"no such customer":                          {map[string]string{zero: `200 {"result":"OK"}`, "customer.get_data?customer_id=3": `200 {"result":"OK"}`}, map[provision.SubscriberID]string{1: "active", 2: "pause"}, nil},
		"get_data is not allowed: state is unknown": {map[string]string{zero: `200 {"result":"OK"}`, "customer.get_data?customer_id=3": `403 {"error":"no"}`}, map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "unknown"}, map[provision.ProblemKind]int{provision.ProblemUnknownState: 1, provision.ProblemBadRow: 1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rules := good()
			for k, v := range tt.rules {
				rules[k] = v
			}
			_, c := newFakeERP(t, rules)
			f, _ := newFetcher(t, c, Options{})
			in := fetch(t, f, nil)
			require.Equal(t, tt.want, states(in))
			if tt.problems == nil {
				require.Empty(t, in.Problems)
			} else {
				require.Equal(t, tt.problems, kinds(in))
			}
			snap, problems := provision.Build(in)
			stopped, _ := snap.Blocked()
			require.NotContains(t, stopped, addr(1), "an active customer is not blocked")
			if tt.want[3] == "" || tt.want[3] == "unknown" {
				require.NotContains(t, stopped, addr(3), "one of unknown state is not blocked")
				require.NotEmpty(t, problems)
			}
		})
	}
	t.Run("get_data down fails the fetch", func(t *testing.T) {
		rules := good()
		rules[zero], rules["customer.get_data?customer_id=3"] = `200 {"result":"OK"}`, `500 x`
		_, c := newFakeERP(t, rules)
		f, _ := newFetcher(t, c, Options{})
		_, err := f.Fetch(ctx, nil)
		require.ErrorIs(t, err, userside.ErrUnavailable)
	})
}

// Of many customers in no list a few are asked each time, the others keep their state.
func TestAskIsBoundedAndTurns(t *testing.T) {
	rules := map[string]string{
		"customer.get_customers_id": `200 {"result":"OK","data":[]}`, "device.get_data": `200 {"result":"OK","data":[]}`,
		"customer.get_data": `200 {"result":"OK","data":{"error":"x","1000000":{"id":1000000,"state_id":2}}}`,
	}
	var rows []string
	prev := provision.Input{}
	for id := 1; id <= 10; id++ {
		rows = append(rows, fmt.Sprintf(`{"customer_id":%d,"ip":%d}`, id, 1681915904+id))
		prev.Subscribers = append(prev.Subscribers, provision.Subscriber{ID: provision.SubscriberID(id), State: provision.StatePause})
	}
	rules["customer.get_ip_port_device_commutation"] = `200 {"result":"OK","data":[` + strings.Join(rows, ",") + `]}`
	for _, ids := range []string{"1,2", "3,4", "5,6", "7,8", "9,10"} {
		a, b, _ := strings.Cut(ids, ",")
		rules["customer.get_data?customer_id="+ids] = fmt.Sprintf(`200 {"result":"OK","data":{"%s":{"id":%s,"state_id":2},"%s":{"id":%s,"state_id":2}}}`, a, a, b, b)
	}
	e, c := newFakeERP(t, rules)
	f, _ := newFetcher(t, c, Options{MaxAsk: 4, BatchSize: 2})
	snap, _ := provision.Build(prev)
	for range 3 {
		in := fetch(t, f, snap)
		require.Empty(t, in.Problems)
		require.Len(t, in.Subscribers, 10)
		snap, _ = provision.Build(in)
	}
	for id := provision.SubscriberID(1); id <= 10; id++ {
		require.Equal(t, provision.StateActive, snap.State(id), "customer %d was never asked for", id)
	}
	asked := 0
	for _, call := range e.calls() {
		if strings.HasPrefix(call, "customer.get_data") {
			asked++
		}
	}
	require.Equal(t, 6, asked, "two lists of two in each fetch")
	t.Run("without a snapshot the rest is a problem", func(t *testing.T) {
		f, _ := newFetcher(t, c, Options{MaxAsk: 4, BatchSize: 2})
		in := fetch(t, f, nil)
		require.Equal(t, map[provision.ProblemKind]int{provision.ProblemUnknownState: 6}, kinds(in))
	})
}

func TestDevicesResolve(t *testing.T) {
	const bindings = "customer.get_ip_port_device_commutation"
	rules := good()
	rules[bindings] = `200 {"result":"OK","data":[
		{"customer_id":1,"ip":"1681915905","device_ip":"192.0.2.10","port":1},
		{"customer_id":2,"ip":"1681915906","device_mac":"00-00-5E-00-53-0B","device_ip":"192.0.2.99","port":"Gi0/1"},
		{"customer_id":3,"ip":"1681915907","device_mac":"00005e0053ff","port":7},
		{"customer_id":3,"ip":"1681915908","device_ip":"192.0.2.77","port":8},
		{"customer_id":3,"ip":"1681915909","device_id":55,"device_ip":"192.0.2.55","port":9},
		{"customer_id":3,"ip":"1681915910","device_id":56,"port":1}]}`
	t.Run("against the list", func(t *testing.T) {
		_, c := newFakeERP(t, rules)
		f, _ := newFetcher(t, c, Options{})
		in := fetch(t, f, nil)
		require.Equal(t, provision.Line{Subscriber: 1, Addresses: provision.Hosts4(addr(1)), Device: 10, Port: 1, PortName: "ge-0/0/1"}, in.Lines[0], "found by address")
		require.Equal(t, provision.Line{Subscriber: 2, Addresses: provision.Hosts4(addr(2)), Device: 11, Port: 1, PortName: "Gi0/1"}, in.Lines[1], "found by MAC, port by name")
		require.Equal(t, provision.DeviceID(55), in.Lines[4].Device)
		again := fetch(t, f, nil)
		require.Equal(t, in.Lines, again.Lines, "made ids are stable")
		snap, problems := provision.Build(in)
		require.Equal(t, 1, snap.ByPort(in.Lines[2].Device, 7).Len())
		require.Equal(t, in.Lines[2].Device, snap.DeviceByMAC(provision.MAC{0, 0, 0x5e, 0, 0x53, 0xff}).ID)
		require.Equal(t, in.Lines[3].Device, snap.DeviceByIP(netip.MustParseAddr("192.0.2.77")).ID)
		require.NotEqual(t, in.Lines[2].Device, in.Lines[3].Device)
		require.Len(t, problems, 1, "device 56 is listed nowhere")
		require.Equal(t, provision.ProblemUnknownDevice, problems[0].Kind)
	})
	t.Run("without the list", func(t *testing.T) {
		rules := good()
		rules["device.get_data"] = `403 {"error":"section"}`
		rules[bindings] = `200 {"result":"OK","data":[
			{"customer_id":1,"ip":"1681915905","device_id":10,"port":1},
			{"customer_id":2,"ip":"1681915906","device_id":10,"device_ip":"192.0.2.10","device_mac":"00005e00530a","device_name":"sw-10","port":2}]}`
		e, c := newFakeERP(t, rules)
		f, log := newFetcher(t, c, Options{})
		in := fetch(t, f, nil)
		require.Equal(t, devices[:1], in.Devices)
		require.Equal(t, map[provision.ProblemKind]int{provision.ProblemUnknownDevice: 1}, kinds(in))
		fetch(t, f, nil)
		require.Equal(t, 1, strings.Count(log.String(), "answers only in part"))
		e.set("device.get_data", good()["device.get_data"])
		require.Empty(t, fetch(t, f, nil).Problems)
		require.Contains(t, log.String(), "in full again")
	})
}

func TestDefectsBecomeProblems(t *testing.T) {
	rules := good()
	rules["customer.get_ip_port_device_commutation"] = `200 {"result":"OK","data":[{"customer_id":1,"ip":"1681915905"},{"customer_id":2,"ip":"300.1.1.1"},{"customer_id":3,"mac":"00005e005304"}]}`
	_, c := newFakeERP(t, rules)
	f, _ := newFetcher(t, c, Options{})
	in := fetch(t, f, nil)
	require.Equal(t, []provision.Problem{{Kind: provision.ProblemBadRow, Detail: `bindings: data[1].ip: "300.1.1.1" is not an IPv4 address`}}, in.Problems)
	_, problems := provision.Build(in)
	require.Len(t, problems, 2)
	require.Equal(t, provision.ProblemNoAddress, problems[1].Kind)
}

func TestComposedOddities(t *testing.T) {
	composed := func(t *testing.T, change map[string]string, o Options) (*fakeERP, *Fetcher) {
		rules := good()
		for k, v := range change {
			rules[k] = v
		}
		e, c := newFakeERP(t, rules)
		o.Bindings = ModeComposed
		f, _ := newFetcher(t, c, o)
		return e, f
	}
	t.Run("batches", func(t *testing.T) {
		e, f := composed(t, map[string]string{
			"customer.get_data?customer_id=1,2": `200 {"result":"OK","data":{"1":{"id":1,"state_id":2},"2":{"id":2,"state_id":1,"ip_mac":[{"ip":"100.64.0.2","mac":"00005e005302"}]}}}`,
			"customer.get_data?customer_id=3":   `200 {"result":"OK","data":{"id":3,"state_id":0}}`,
		}, Options{BatchSize: 2})
		in := fetch(t, f, nil)
		require.ElementsMatch(t, []provision.Line{
			{Subscriber: 1, Device: 10, Port: 1, PortName: "ge-0/0/1"}, row2, {Subscriber: 3, Device: 11, Port: 1, PortName: "Gi0/1"},
		}, in.Lines, "who has a port but no address is told too")
		calls := e.calls()
		require.Contains(t, calls, "customer.get_data?customer_id=1,2")
		require.Contains(t, calls, "customer.get_data?customer_id=3")
	})
	t.Run("state of get_data is newer than the list's", func(t *testing.T) {
		_, f := composed(t, map[string]string{"customer.get_customers_id?state_id=2": `200 {"result":"OK","data":[1,2]}`, "customer.get_customers_id?state_id=1": `200 {"result":"OK"}`}, Options{})
		require.Equal(t, map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "stop"}, states(fetch(t, f, nil)))
	})
	t.Run("customer known only by a link", func(t *testing.T) {
		_, f := composed(t, map[string]string{"customer.get_customers_id?state_id=0": `200 {"result":"OK"}`}, Options{})
		require.Equal(t, map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "stop"}, states(fetch(t, f, nil)))
	})
	t.Run("one customer is refused", func(t *testing.T) {
		_, f := composed(t, map[string]string{
			"customer.get_data?customer_id=1,2,3": refused,
			"customer.get_data?customer_id=1":     `200 {"result":"OK","data":{"id":1,"state_id":2,"ip_mac":[{"ip":"100.64.0.1","mac":"00005e005301"}]}}`,
			"customer.get_data?customer_id=2,3":   refused, "customer.get_data?customer_id=2": refused,
			"customer.get_data?customer_id=3": `200 {"result":"OK"}`,
		}, Options{})
		prev, _ := provision.Build(provision.Input{Lines: []provision.Line{row2}, Devices: devices})
		in := fetch(t, f, prev)
		require.Equal(t, []provision.Line{row1, row2}, in.Lines, "rows of the refused one are kept, the missing one is gone")
		require.Equal(t, []provision.SubscriberID{2}, in.Earlier, "and are no news of the ERP")
		require.Equal(t, map[provision.ProblemKind]int{provision.ProblemBadRow: 1}, kinds(in))
		require.Equal(t, provision.SubscriberID(2), in.Problems[0].Subscriber)
	})
	t.Run("customers may not be read", func(t *testing.T) {
		_, f := composed(t, map[string]string{"customer.get_data?customer_id=1,2,3": `403 {"error":"x"}`}, Options{})
		_, err := f.Fetch(ctx, nil)
		require.ErrorIs(t, err, userside.ErrPermission)
	})
	t.Run("all lists are refused", func(t *testing.T) {
		var ids []string
		for i := range 400 {
			ids = append(ids, fmt.Sprint(i+1))
		}
		e, f := composed(t, map[string]string{"customer.get_customers_id?state_id=2": `200 {"result":"OK","data":[` + strings.Join(ids, ",") + `]}`, "customer.get_data": refused}, Options{})
		_, err := f.Fetch(ctx, nil)
		require.ErrorIs(t, err, errTooManySplits)
		require.Less(t, len(e.calls()), 160, "bounded")
	})
	t.Run("two switch links", func(t *testing.T) {
		_, f := composed(t, map[string]string{"commutation.get_data?object_type=customer": `200 {"result":"OK","data":{"1":[{"object_type":"switch","object_id":10,"interface":1},{"object_type":"switch","object_id":11,"interface":1}]}}`}, Options{})
		in := fetch(t, f, nil)
		n := 0
		for _, b := range in.Lines {
			if b.Subscriber == 1 {
				n++
			}
		}
		require.Equal(t, 2, n)
	})
}

func TestChainsAreBoundedAndCached(t *testing.T) {
	rules := good()
	rules["customer.get_ip_port_device_commutation"] = refused
	links := []string{}
	ids := []string{}
	data := []string{}
	prev := provision.Input{Devices: devices}
	for id := 1; id <= 5; id++ {
		ids = append(ids, fmt.Sprint(id))
		links = append(links, fmt.Sprintf(`"%d":[{"object_type":"fiber","object_id":%d}]`, id, 70+id))
		data = append(data, fmt.Sprintf(`"%d":{"id":%d,"state_id":2,"ip_mac":[{"ip":"100.64.0.%d"}]}`, id, id, id))
		rules[fmt.Sprintf("commutation.get_data?is_finish_data=1&object_id=%d", id)] =
			fmt.Sprintf(`200 {"result":"OK","data":{"finish":{"object_type":"switch","object_id":10,"interface":%d}}}`, id)
		prev.Lines = append(prev.Lines, provision.Line{Subscriber: provision.SubscriberID(id), Addresses: provision.Hosts4(addr(byte(id))), Device: 11, Port: uint32(id)})
	}
	rules["customer.get_customers_id?state_id=2"] = `200 {"result":"OK","data":[` + strings.Join(ids, ",") + `]}`
	rules["customer.get_customers_id?state_id=1"], rules["customer.get_customers_id?state_id=0"] = `200 {"result":"OK"}`, `200 {"result":"OK"}`
	rules["commutation.get_data?object_type=customer"] = `200 {"result":"OK","data":{` + strings.Join(links, ",") + `}}`
	rules["customer.get_data"] = `200 {"result":"OK","data":{` + strings.Join(data, ",") + `}}`
	e, c := newFakeERP(t, rules)
	f, _ := newFetcher(t, c, Options{Bindings: ModeComposed, MaxChains: 2})
	chains := func() int {
		n := 0
		for _, call := range e.calls() {
			if strings.Contains(call, "is_finish_data=1") {
				n++
			}
		}
		return n
	}
	snap, _ := provision.Build(prev)
	ports := func(in provision.Input) (out []provision.DeviceID) {
		for _, b := range in.Lines {
			out = append(out, b.Device)
		}
		return out
	}
	require.Equal(t, []provision.DeviceID{10, 10, 11, 11, 11}, ports(fetch(t, f, snap)), "those not asked keep their port")
	require.Equal(t, 2, chains())
	require.Equal(t, []provision.DeviceID{10, 10, 10, 10, 11}, ports(fetch(t, f, snap)))
	require.Equal(t, []provision.DeviceID{10, 10, 10, 10, 10}, ports(fetch(t, f, snap)))
	require.Equal(t, 4, chains())
	e.set("commutation.get_data?is_finish_data=1&object_id=2", refused)
	require.Equal(t, []provision.DeviceID{10, 10, 10, 10, 10}, ports(fetch(t, f, nil)), "a refusal keeps the end that was known")
	require.Equal(t, 2, chains())
}

func TestSetMAC(t *testing.T) {
	for name, tt := range map[string]struct {
		answer  string
		probe   string // answer of a read with the same key
		ok      bool
		refused bool
	}{
		"accepted":                      {`200 {"result":"OK"}`, ``, true, false},
		"refused":                       {`400 {"error":"no such ip"}`, ``, false, true},
		"refused, old":                  {`200 {"Result":"ERROR","ErrorText":"no such ip"}`, `200 {"Result":"OK"}`, false, true},
		"hook says 0":                   {`200 {"result":"0","msg":"x"}`, `200 {"result":"OK","data":[1]}`, false, false},
		"old ERP refuses the key":       {`200 {"Result":"ERROR","ErrorText":"denied"}`, `200 {"Result":"ERROR","ErrorText":"denied"}`, false, false},
		"refused, then the ERP is down": {`200 {"Result":"ERROR"}`, `500 x`, false, false},
		"forbidden":                     {`403 {"error":"x"}`, ``, false, false},
		"down":                          {`500 x`, ``, false, false},
		"login page":                    {`200 <html>`, ``, false, false},
		"unknown shape":                 {`200 {}`, ``, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			e, c := newFakeERP(t, map[string]string{"customer.set_mac_by_ip": tt.answer, "customer.state_change": tt.answer,
				"customer.get_customers_id?limit=1&state_id=2": tt.probe})
			f, _ := newFetcher(t, c, Options{})
			for _, err := range []error{f.SetMAC(ctx, addr(1), mac1), f.ChangeState(ctx, 7, provision.StatePause)} {
				if tt.ok {
					require.NoError(t, err)
					continue
				}
				require.Error(t, err)
				require.Equal(t, tt.refused, isRefused(err), err)
				require.Equal(t, slices.Contains([]string{"hook says 0", "down", "login page", "unknown shape"}, name), errors.Is(err, provision.ErrUncertain), err)
			}
			calls := slices.DeleteFunc(e.calls(), func(s string) bool { return strings.HasPrefix(s, "customer.get_customers_id") })
			require.Equal(t, []string{"customer.set_mac_by_ip?ip=100.64.0.1&mac=00%3A00%3A5e%3A00%3A53%3A01", "customer.state_change?customer_id=7&state_id=1"}, calls)
		})
	}
	_, c := newFakeERP(t, nil)
	f, _ := newFetcher(t, c, Options{})
	require.True(t, isRefused(f.SetMAC(ctx, addr(1), provision.MAC{})), "what can never be sent is a refusal")
	require.ErrorContains(t, f.ChangeState(ctx, 7, provision.StateUnknown), "unknown cannot be set")
	require.False(t, isRefused(f.ChangeState(ctx, 7, provision.StateUnknown)))
}

func isRefused(err error) bool { return errors.Is(err, provision.ErrRefused) }

func TestSystem(t *testing.T) {
	_, c := newFakeERP(t, map[string]string{"system.get_system_info": `200 {"result":"OK","data":{"erp_version":"3.19"}}`})
	f, _ := newFetcher(t, c, Options{})
	info, err := f.System(ctx)
	require.NoError(t, err)
	require.Equal(t, "3.19", info.Version.Text())
}

func TestNewRefuses(t *testing.T) {
	_, c := newFakeERP(t, nil)
	_, err := New(nil, Options{})
	require.ErrorContains(t, err, "no client")
	_, err = New(c, Options{Bindings: "both"})
	require.ErrorContains(t, err, `"both"`)
	_, err = New(c, Options{BatchSize: -1})
	require.ErrorContains(t, err, "batch size")
}

func TestCanceledFetch(t *testing.T) {
	_, c := newFakeERP(t, good())
	f, _ := newFetcher(t, c, Options{})
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	_, err := f.Fetch(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
}
