package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/erp"
	"github.com/usher-agent/usher/provision/garden"
	"github.com/usher-agent/usher/provision/neighbour"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/route"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

var update = flag.Bool("update", false, "write the expected texts in testdata")

const testSecret = "s3cret-of-the-test-4711"

const testKey = "k3y-of-the-test-0815"

// testEnv has one good key file, some bad ones and one group.
func testEnv() Env {
	type file struct {
		text string
		mode fs.FileMode
	}
	files := map[string]file{
		"/etc/usher/userside.key": {testKey + "\n", 0o640},
		"/etc/usher/open.key":     {testKey, 0o644},
		"/etc/usher/empty.key":    {" \n", 0o600},
		"/etc/usher/two.key":      {testKey + "\n" + testKey, 0o600},
		"/etc/usher/not.pem":      {"hello", 0o644},
		"/etc/usher/bad.html":     {"<p>\n{{.Balance}}", 0o644},
		"/cred/userside-key":      {testKey, 0o400},

		"/etc/usher/hook.secret":     {testSecret + "\n", 0o640},
		"/etc/usher/short.secret":    {"0123456789", 0o600},
		"/cred/userside-hook-secret": {testSecret, 0o400},
	}
	return Env{
		ReadFile: func(path string, limit int64) ([]byte, fs.FileMode, error) {
			if path == "/etc/usher/root.key" {
				return nil, 0, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
			}
			f, ok := files[path]
			if !ok {
				return nil, 0, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			return []byte(f.text), f.mode, nil
		},
		LookupGroup: func(name string) error {
			if name != "netadmin" {
				return fmt.Errorf("unknown group %s", name)
			}
			return nil
		},
	}
}

func parseFile(t *testing.T, path string) (*Config, error) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return Parse(filepath.Base(path), data, testEnv())
}

// TestErrors walks testdata: each bad file has the exact text of its errors
// beside it.
func TestErrors(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	for _, in := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(in), ".yaml"), func(t *testing.T) {
			cfg, err := parseFile(t, in)
			require.Error(t, err)
			assert.Nil(t, cfg)
			var list *keys.Errors
			require.True(t, errors.As(err, &list), "type %T", err)
			assert.NotContains(t, err.Error(), testKey)
			golden := strings.TrimSuffix(in, ".yaml") + ".txt"
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644))
			}
			want, rerr := os.ReadFile(golden)
			require.NoError(t, rerr)
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

// wholeTypes are the types that are compared as a whole, and what no file says.
func wholeTypes() cmp.Options {
	return cmp.Options{
		cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}), cmpopts.IgnoreUnexported(ERP{}),
		cmpopts.IgnoreFields(userside.Options{}, "Transport", "Location", "Logger", "Observer"),
		cmpopts.IgnoreFields(erp.Options{}, "Log", "Policy", "Memory"), cmpopts.IgnoreFields(outbox.Options{}, "Settled"),
		cmpopts.IgnoreFields(access.Options{}, "Inputs"), cmpopts.IgnoreFields(neighbour.Options{}, "Serves"),
		cmpopts.IgnoreFields(route.Options{}, "Serves", "Settings"),
	}
}

func TestMinimalHasDefaults(t *testing.T) {
	got, err := parseFile(t, "usher.example.yaml")
	require.NoError(t, err)
	dlink, _ := option82.Find("dlink")
	ifname, _ := option82.Find("ifname")
	want := &Config{
		StateDir: "/var/lib/usher",
		ERP: ERP{
			Client: userside.Options{
				URL: "https://erp.example.net/api.php", Key: testKey, Timeout: 30 * time.Second, QuickTimeout: 10 * time.Second, Proxy: "environment", RequestsPerMinute: 1200,
				Retries: 3, MaxConcurrent: 1, MaxAnswer: 512, MaxText: 1024,
			},
			Sync:  syncer.Options{PollInterval: time.Minute, RefreshInterval: 10 * time.Minute, PollJitter: 0.1},
			Fetch: erp.Options{Bindings: "auto", BatchSize: 100},
		},
		Policy: provision.DefaultPolicy(),
		Hooks:  Hooks{Window: time.Minute},
		Guard:  syncer.GuardLimits{MaxRemoved: 0.1, MaxMoved: 0.1, MaxBlocked: 0.1, MaxOpened: 0.1, MaxAdded: 0.25, MinChanged: 20},
		DHCP: DHCP{Enabled: true, Options: dhcpd.Options{
			Interfaces: []string{"eth1", "eth2"}, Listen: netip.MustParseAddrPort("0.0.0.0:67"),
			Limits: dhcpd.Limits{
				Client: dhcpd.Limit{Rate: 5, Burst: 20}, Port: dhcpd.Limit{Rate: 200, Burst: 2000}, Relay: dhcpd.Limit{Rate: 5000, Burst: 20_000},
			},
			Options: v4.Options{
				RelayPort: 67, ClientPort: 68, Match: []v4.MatchKind{v4.MatchOption82, v4.MatchMAC}, ClientKey: v4.ClientKeyMAC,
				MACChange: v4.MACAccept, BindingChange: v4.BindingNAK, Authoritative: true,
				Options: line.Options{
					Relays: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("192.0.2.8/32")}, CheckRelaySource: line.SourceListed,
					SubscriberInterfaces: []string{"eth2"}, TrustedInterfaces: []string{line.NoInterface}, Option82Relays: []string{"192.0.2.7", "192.0.2.8"}, Option82: line.Option82{Default: []option82.Profile{dlink, ifname}},
				},
				Subnets: []v4.Subnet{{
					Prefix: netip.MustParsePrefix("198.51.100.0/24"), Gateway: netip.MustParseAddr("198.51.100.1"),
					LeaseTime: time.Hour, RenewTime: 30 * time.Minute, RebindTime: 52*time.Minute + 30*time.Second,
					OptionSet: options.OptionSet{DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("192.0.2.54")}},
				}},
				Unknown: v4.UnknownSilence, Quarantine: time.Hour,
			},
		}},
		ACL: ACL{
			Enabled: true, Options: access.Options{VerifyInterval: 30 * time.Second, FlowsInterval: time.Second},
			Garden: garden.Options{Interval: time.Minute, Keep: time.Hour}, IPv6: "block",
			SourceGuard: ACLSourceGuard{Direct: []string{"eth2"}},
		},
		Portal:     portal.Options{Languages: []string{"en", "uk", "ru"}},
		Routes:     Routes{Options: route.Options{Table: 254, VerifyInterval: time.Minute}, Protocol: 207},
		Neighbours: Neighbours{Options: neighbour.Options{MinTime: 10 * time.Second}},
		Reports:    outbox.Options{Enabled: true, Rate: 5, Burst: 10},
		Control:    Control{Socket: "/run/usher/usher.sock"},
		Console:    Console{Listen: netip.MustParseAddrPort("127.0.0.1:9467")},
		Log:        Log{Level: "info", Format: "auto"},
	}
	assert.Len(t, got.Interfaces, 5)
	assert.Len(t, got.RelayPlaces, 2)
	got.Interfaces, got.RelayPlaces = nil, nil // places in the file
	if diff := cmp.Diff(want, got, wholeTypes()); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

// TestReferenceStatesDefaults compares the reference with the same file after
// every key that has a default was taken out.
func TestReferenceStatesDefaults(t *testing.T) {
	ref, err := parseFile(t, "usher.reference.yaml")
	require.NoError(t, err)
	small, err := Parse("small.yaml", []byte(`
userside: {url: https://erp.example.net/api.php, key_file: /etc/usher/userside.key}
guard: {expected: [{days: [1], hours: 00:00-06:00, share: 60%}]}
dhcp: {subnets: [{prefix: 198.51.100.0/24, gateway: 198.51.100.1, dns: [192.0.2.53, 192.0.2.54],
                  routes: [{to: 10.0.0.0/8, via: 198.51.100.2}],
                  vendor_specific: [{code: 1, type: string, value: "https://acs.example.net/"}],
                  vendor: [{enterprise: 3561, options: [{code: 11, type: string, value: "https://acs.example.net/"}]}],
                  options: [{code: 26, type: uint16, value: 1500}]}],
       check_relay_source: true, option82_relays: none, trusted_interfaces: none,
       client_ids: [{text: gateway-7, ip: 198.51.100.7}, {hex: "ff00000007000480", ip: 198.51.100.8}],
       classes: [{name: iptv, next_server: 192.0.2.80, boot_file: stb.img,
                  match: {vendor_class: "stb-*", mac_prefix: ["00:00:5e"], options: [{code: 93, hex: "0000"}, {code: 97}]}}],
       shared_networks: [{name: street-7, prefixes: [198.51.100.0/24]}],
       pools: [{name: guests, range: 198.51.100.200-198.51.100.250, captive_portal: "https://portal.example.net/api"}],
       option82: {profiles: [{name: west-catalyst, use: cisco-catalyst, unit_ports: 52,
                              match: {device: [12, 13], device_name: "sw-west-*", model: "*Catalyst 2960*", remote_id: "00:00:5e:*", giaddr: [198.51.100.0/24]}}],
                  exact: [{value: "0106000400640018", device: 12, port: 24}, {value: "0106000400640019", device: 12, port_name: uplink-2}]}}
`), testEnv())
	require.NoError(t, err)
	for _, c := range []*Config{small, ref} {
		c.Warnings, c.Interfaces, c.RelayPlaces = nil, nil, nil // places in files
	}
	if diff := cmp.Diff(small, ref, wholeTypes(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the reference says other defaults (-code +reference):\n%s", diff)
	}
}

// TestReferenceHasEveryKey compares what is declared with what the reference
// shows. What is in a list is shown in one place, and elsewhere as [].
func TestReferenceHasEveryKey(t *testing.T) {
	data, err := os.ReadFile("usher.reference.yaml")
	require.NoError(t, err)
	var doc any
	require.NoError(t, yaml.Unmarshal(data, &doc))
	shown, empty := map[string]bool{}, []string{}
	collectKeys(doc, "", shown, &empty)
	for k := range shown {
		if strings.HasPrefix(k, "policy.states.") {
			delete(shown, k) // numbers, not keys
		}
	}
	known := map[string]bool{}
	collectDeclared(schemaOf(reflect.TypeFor[Config]()), "", known)
	for k := range known {
		if slices.ContainsFunc(empty, func(list string) bool { return strings.HasPrefix(k, list+"[].") }) {
			delete(known, k)
		}
	}
	assert.Equal(t, slices.Sorted(maps.Keys(known)), slices.Sorted(maps.Keys(shown)), "declarations and reference")
}

// TestReferenceCommentsEveryKey: a comment stands above each key, or above the
// group of keys without a blank line between.
func TestReferenceCommentsEveryKey(t *testing.T) {
	data, err := os.ReadFile("usher.reference.yaml")
	require.NoError(t, err)
	commented := false
	for i, line := range strings.Split(string(data), "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "":
			commented = false
		case strings.HasPrefix(trimmed, "#"):
			commented = true
		default:
			if strings.HasSuffix(trimmed, ":") || trimmed == "enabled: true" || strings.HasPrefix(trimmed, "socket:") {
				continue // explained by the section's comment or by what is below it
			}
			assert.True(t, commented, "line %d: %s has no comment", i+1, trimmed)
		}
	}
}

func collectKeys(doc any, path string, into map[string]bool, empty *[]string) {
	switch n := doc.(type) {
	case map[string]any:
		for k, v := range n {
			p := strings.TrimPrefix(path+"."+k, ".")
			into[p] = true
			collectKeys(v, p, into, empty)
		}
	case []any:
		if len(n) == 0 {
			*empty = append(*empty, path)
		}
		for _, v := range n {
			collectKeys(v, path+"[]", into, empty)
		}
	}
}

func collectDeclared(s keys.Shape, path string, into map[string]bool) {
	if properties, ok := s["properties"].(keys.Shape); ok {
		for k, v := range properties {
			p := strings.TrimPrefix(path+"."+k, ".")
			into[p] = true
			collectDeclared(v.(keys.Shape), p, into)
		}
	}
	if items, ok := s["items"].(keys.Shape); ok {
		collectDeclared(items, path+"[]", into)
	}
}

// stated is what dhcp says of trust, so that nothing is left to say of it.
const stated = "relays: [192.0.2.7], check_relay_source: true, option82_relays: all, trusted_interfaces: none"

const head = "userside: {url: https://erp.example.net/api.php, key_file: /etc/usher/userside.key}\n"

func TestKeySources(t *testing.T) {
	tests := map[string]struct {
		userside, credentials, wantErr string
	}{
		"file":                          {userside: "key_file: /etc/usher/userside.key"},
		"credential by default":         {credentials: "/cred"},
		"file before credential":        {userside: "key_file: /etc/usher/userside.key", credentials: "/cred"},
		"file of root, with credential": {userside: "key_file: /etc/usher/root.key", credentials: "/cred"},
		"file of root, no credential":   {userside: "key_file: /etc/usher/root.key", wantErr: "the file cannot be read: permission denied"},
		"absent, with credential":       {userside: "key_file: /nowhere", credentials: "/cred", wantErr: "the file cannot be read: file does not exist"},
		"inline with consent":           {userside: "key: " + testKey + ", allow_inline_key: true"},
		"inline without consent":        {userside: "key: " + testKey, wantErr: "userside.key: the API key in clear"},
		"both":                          {userside: "key_file: /etc/usher/userside.key, key: " + testKey, wantErr: "userside.key: given beside key_file"},
		"none":                          {wantErr: "userside.key_file: missing"},
		"unit without this credential":  {credentials: "/other", wantErr: "userside.key_file: missing"},
		"world readable":                {userside: "key_file: /etc/usher/open.key", wantErr: "everybody on this host can read the file (mode 0644)"},
		"empty":                         {userside: "key_file: /etc/usher/empty.key", wantErr: "the API key is empty"},
		"two lines":                     {userside: "key_file: /etc/usher/two.key", wantErr: "want one line"},
		"absent":                        {userside: "key_file: /nowhere", wantErr: "the file cannot be read: file does not exist"},
		"key in place of its path":      {userside: "key_file: " + testKey, wantErr: "want the absolute path"},
		"key as a path":                 {userside: "key_file: /" + testKey, wantErr: "the file cannot be read: file does not exist"},
		"key as a list":                 {userside: "key: [" + testKey + "], allow_inline_key: true", wantErr: "want the API key as text, got a list"},
		"key in the URL":                {userside: "key_file: /etc/usher/userside.key, url: 'https://erp.example.net/api.php?key=" + testKey + "'", wantErr: "userside.url: holds the API key"},
		"key in a broken URL":           {userside: "key_file: /etc/usher/userside.key, url: 'https://erp.example.net:x/api.php?key=" + testKey + "'", wantErr: "userside.url: cannot be read as a URL"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			env := testEnv()
			env.CredentialsDir = tt.credentials
			u := tt.userside
			if !strings.Contains(u, "url:") {
				u = strings.TrimSuffix("url: https://erp.example.net/api.php, "+u, ", ")
			}
			cfg, err := Parse("usher.yaml", []byte("userside: {"+u+"}\ndhcp: {enabled: false}\n"), env)
			if tt.wantErr == "" {
				require.NoError(t, err)
				assert.Equal(t, testKey, string(cfg.ERP.Client.Key))
				assert.NotContains(t, fmt.Sprintf("%v %+v %#v %s", cfg, cfg.ERP, cfg.ERP, cfg.ERP.Client.Key), testKey)
				return
			}
			require.ErrorContains(t, err, tt.wantErr)
			assert.NotContains(t, err.Error(), testKey)
		})
	}
}

func TestOptionEncoding(t *testing.T) {
	tests := map[string]struct {
		kind, value string
		want        []byte
		wantErr     string
	}{
		"ip":                {"ip", "192.0.2.9", []byte{192, 0, 2, 9}, ""},
		"ips":               {"ips", "[192.0.2.9, 192.0.2.10]", []byte{192, 0, 2, 9, 192, 0, 2, 10}, ""},
		"ips empty":         {"ips", "[]", nil, "0 bytes"},
		"string":            {"string", "http://192.0.2.9/boot", []byte("http://192.0.2.9/boot"), ""},
		"string of digits":  {"string", "007", []byte("007"), ""},
		"hex with colons":   {"hex", "'01:04:c0:00:02:09'", []byte{1, 4, 192, 0, 2, 9}, ""},
		"hex plain":         {"hex", "'0x0104'", []byte{1, 4}, ""},
		"hex odd":           {"hex", "'104'", nil, "want hexadecimal bytes"},
		"uint8":             {"uint8", "255", []byte{255}, ""},
		"uint8 too large":   {"uint8", "256", nil, "from 0 to 255"},
		"uint16":            {"uint16", "1500", []byte{5, 220}, ""},
		"uint16 negative":   {"uint16", "-1", nil, "from 0 to 65535"},
		"uint32":            {"uint32", "86400", []byte{0, 1, 0x51, 0x80}, ""},
		"bool true":         {"bool", "true", []byte{1}, ""},
		"bool false":        {"bool", "false", []byte{0}, ""},
		"bool word":         {"bool", "'yes'", nil, "want true or false, got text"},
		"string in parts":   {"string", strings.Repeat("x", 256), []byte(strings.Repeat("x", 256)), ""},
		"string too long":   {"string", strings.Repeat("x", 1025), nil, "1025 bytes; an option holds 1 to 1024"},
		"ip as a list":      {"ip", "[192.0.2.9]", nil, "want an IPv4 address, got a list"},
		"unknown type":      {"int", "1", nil, `"int" is not one of ip, ips`},
		"ipv6":              {"ip", "'2001:db8::1'", nil, "is not an IPv4 address"},
		"classless routing": {"hex", "'18c0000200c6336401'", []byte{0x18, 0xc0, 0, 2, 0, 0xc6, 0x33, 0x64, 1}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			text := head + "dhcp: {subnets: [{prefix: 192.0.2.0/24, options: [{code: 224, type: " + tt.kind + ", value: " + tt.value + "}]}]}\n"
			cfg, err := Parse("usher.yaml", []byte(text), testEnv())
			if tt.wantErr != "" {
				require.ErrorContains(t, err, tt.wantErr)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, []options.Option{{Code: 224, Value: tt.want}}, cfg.DHCP.Subnets[0].Options)
		})
	}
}

func TestReservedOptionCodesSayWhy(t *testing.T) {
	for _, code := range []int{0, 1, 3, 6, 12, 15, 42, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 61, 80, 82, 90, 118, 255} {
		text := head + fmt.Sprintf("dhcp: {subnets: [{prefix: 192.0.2.0/24, options: [{code: %d, type: uint8, value: 1}]}]}\n", code)
		_, err := Parse("usher.yaml", []byte(text), testEnv())
		require.ErrorContains(t, err, fmt.Sprintf("dhcp.subnets[0].options[0].code: option %d cannot be set here: ", code))
	}
}

func TestWarnings(t *testing.T) {
	cfg, err := Parse("usher.yaml", []byte(`
userside:
  url: http://erp.example.net/api.php
  key_file: /etc/usher/userside.key
  insecure_skip_verify: true
dhcp: {enabled: false}
console: {listen: "0.0.0.0:9467"}
`), testEnv())
	require.NoError(t, err)
	var got []string
	for _, w := range cfg.Warnings {
		got = append(got, w.String())
	}
	require.Len(t, got, 3)
	assert.Contains(t, got[0], "usher.yaml:3:8: userside.url: http, not https")
	assert.Contains(t, got[1], "usher.yaml:5:25: userside.insecure_skip_verify: ")
	assert.Contains(t, got[2], "usher.yaml:7:19: console.listen: not a loopback address")

	quiet, err := Parse("usher.yaml", []byte("userside: {url: 'http://127.0.0.1:8080/api.php', key_file: /etc/usher/userside.key}\ndhcp: {enabled: false}\n"), testEnv())
	require.NoError(t, err)
	assert.Empty(t, quiet.Warnings)
}

func TestAnchors(t *testing.T) {
	cfg, err := Parse("usher.yaml", []byte(head+`
dhcp:
  subnets:
    - {prefix: 192.0.2.0/24, dns: &dns [198.51.100.53]}
    - {prefix: 198.51.100.0/24, dns: *dns}
`), testEnv())
	require.NoError(t, err)
	assert.Equal(t, cfg.DHCP.Subnets[0].DNS, cfg.DHCP.Subnets[1].DNS)
}

func TestSocketPathTooLong(t *testing.T) {
	for length, wantErr := range map[int]string{107: "", 108: "control.socket: 108 bytes; the kernel takes at most 107 for a socket's path"} {
		text := head + "dhcp: {enabled: false}\ncontrol: {socket: /" + strings.Repeat("s", length-1) + "}\n"
		_, err := Parse("usher.yaml", []byte(text), testEnv())
		if wantErr == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, wantErr)
	}
}

func TestConsoleOff(t *testing.T) {
	cfg, err := Parse("usher.yaml", []byte(head+"dhcp: {enabled: false}\nconsole: {listen: off}\n"), testEnv())
	require.NoError(t, err)
	assert.False(t, cfg.Console.Listen.IsValid())
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	require.NoError(t, os.WriteFile(key, []byte(testKey+"\n"), 0o600))
	path := filepath.Join(dir, "usher.yaml")
	text := "userside: {url: https://erp.example.net/api.php, key_file: " + key + "}\ndhcp: {enabled: false}\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	cfg, err := Load(path)
	require.NoError(t, err)
	assert.Equal(t, testKey, string(cfg.ERP.Client.Key))

	require.NoError(t, os.Chmod(key, 0o604))
	_, err = Load(path)
	require.ErrorContains(t, err, path+":1:60: userside.key_file: everybody on this host can read the file (mode 0604)")

	_, err = Load(filepath.Join(dir, "none.yaml"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Load(dir)
	require.ErrorContains(t, err, "not a regular file")
}

// FuzzParse: no text makes Parse panic, give neither result nor error, repeat the
// key, or take what the schema refuses.
func FuzzParse(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	require.NoError(f, err)
	for _, in := range append(inputs, "usher.example.yaml", "usher.reference.yaml") {
		data, err := os.ReadFile(in)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte(head + "dhcp: {enabled: false, max_macs_per_port: \"5\", common: {mtu: \"1500\", domain: 7, dns: }}\nneighbours: {min_time: 0}\npolicy: \nlog:\n"))
	schema := compiled(f)
	f.Add([]byte("a: &a *a\nb: *a\n"))
	f.Add([]byte("userside: &u {key: *u}\n"))
	f.Add([]byte("? [x]\n: y\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		env := testEnv()
		cfg, err := Parse("fuzz.yaml", data, env)
		if (cfg == nil) == (err == nil) {
			t.Fatalf("config %v and error %v", cfg != nil, err)
		}
		if err == nil {
			if keys, ok := refused(schema, data); ok {
				require.Empty(t, keys)
			}
			return
		}
		var list *keys.Errors
		require.True(t, errors.As(err, &list))
		for _, p := range list.Problems {
			require.Positive(t, p.Line)
			require.Positive(t, p.Column)
			require.NotEmpty(t, p.Reason)
		}
		if !strings.Contains(string(data), testKey) {
			require.NotContains(t, err.Error(), testKey)
		}
	})
}

// TestUnitAgrees: the packaged unit provides what the defaults rely on.
func TestUnitAgrees(t *testing.T) {
	unit, err := os.ReadFile("../systemd/usher.service")
	require.NoError(t, err)
	cfg, err := parseFile(t, "usher.example.yaml")
	require.NoError(t, err)
	assert.Contains(t, string(unit), "\nLoadCredential="+CredentialName+":")
	assert.Contains(t, string(unit), "\n#LoadCredential="+HookCredentialName+":", "optional: the unit would not start without the file")
	assert.Contains(t, string(unit), "\nStateDirectory="+filepath.Base(cfg.StateDir)+"\n")
	assert.Equal(t, "/var/lib", filepath.Dir(cfg.StateDir))
	assert.Contains(t, string(unit), "\nRuntimeDirectory="+filepath.Base(filepath.Dir(cfg.Control.Socket))+"\n")
	assert.Equal(t, "/run", filepath.Dir(filepath.Dir(cfg.Control.Socket)))
}

// A version is a word, not a number: 3.20 is not 3.2.
func TestERPVersion(t *testing.T) {
	for text, want := range map[string]string{
		"auto": "", "3.17": "3.17", "3.20": "3.20", "3.16dev3": "3.16dev3", "3.12beta35": "3.12beta35", "3.12rc2": "3.12rc2", "3.18.15": "3.18.15",
	} {
		cfg, err := Parse("usher.yaml", []byte(strings.Replace(head, "}", ", erp_version: "+text+"}", 1)+"dhcp: {enabled: false}\n"), testEnv())
		require.NoError(t, err, text)
		got := cfg.ERP.Client.ERPVersion.String()
		if want == "" {
			require.True(t, cfg.ERP.Client.ERPVersion.IsZero())
			continue
		}
		require.Equal(t, want, got)
	}
}

func TestHosts(t *testing.T) {
	cfg, err := Parse("usher.yaml", []byte(head+"dhcp: {enabled: false}\nconsole: {allow: [192.0.2.7, 10.0.0.0/8], hosts: [Router1.Example.Net., 198.51.100.9, '2001:DB8::1']}\n"), testEnv())
	require.NoError(t, err)
	assert.Equal(t, []string{"router1.example.net", "198.51.100.9", "2001:db8::1"}, cfg.Console.Hosts)
	assert.Equal(t, []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("10.0.0.0/8")}, cfg.Console.Allow)
	for _, bad := range []string{"http://router1", "router1:9467", "a b", "[::1]", "-", "router1/"} {
		_, err := Parse("usher.yaml", fmt.Appendf(nil, "%sdhcp: {enabled: false}\nconsole: {hosts: [%q]}\n", head, bad), testEnv())
		require.ErrorContains(t, err, "console.hosts", bad)
	}
}

// Where calls of the ERP take a way through a proxy, the warning says what that means for the key.
func TestWarnsOfProxies(t *testing.T) {
	env := testEnv()
	env.Proxy = func(u *url.URL) (*url.URL, error) {
		switch u.Hostname() {
		case "erp.example.net":
			return url.Parse("http://me:secret@proxy.example.net:3128")
		case "broken.example.net":
			return nil, errors.New("invalid proxy address")
		}
		return nil, nil
	}
	for name, tt := range map[string]struct{ erp, proxy, want string }{
		"https by the environment": {"https://erp.example.net", "environment", "calls to the ERP go through the proxy proxy.example.net:3128: the API key is encrypted there, " +
			"unless the proxy ends TLS with a certificate that is believed here; proxy: none goes straight to the ERP"},
		"https by default":    {"https://erp.example.net", "", "through the proxy proxy.example.net:3128: the API key is encrypted there"},
		"http by a URL":       {"http://127.0.0.1", "http://192.0.2.3:3128", "through the proxy 192.0.2.3:3128: whoever runs it can read the API key; proxy: none goes straight to the ERP"},
		"none":                {"https://erp.example.net", "none", ""},
		"NO_PROXY":            {"https://other.example.net", "environment", ""},
		"a variable is wrong": {"https://broken.example.net", "environment", "the proxy that the environment names cannot be read, so no call reaches the ERP"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "userside:\n  url: " + tt.erp + "/api.php\n  key_file: /etc/usher/userside.key\n"
			if tt.proxy != "" {
				text += "  proxy: " + tt.proxy + "\n"
			}
			cfg, err := Parse("usher.yaml", []byte(text+"dhcp: {enabled: false}\n"), env)
			require.NoError(t, err)
			var warned []string
			for _, w := range cfg.Warnings {
				if strings.HasSuffix(w.Key, "proxy") {
					warned = append(warned, w.Reason)
				}
			}
			if tt.want == "" {
				require.Empty(t, warned)
				return
			}
			require.Len(t, warned, 1)
			require.Contains(t, warned[0], tt.want)
			require.NotContains(t, warned[0], "secret")
		})
	}
	_, err := Parse("usher.yaml", []byte("userside: {url: \"https://erp.example.net/api.php\", key_file: /etc/usher/userside.key, proxy: \"http://me:secret@192.0.2.3\"}\n"), env)
	require.ErrorContains(t, err, "proxy: must not hold user and password")
	require.NotContains(t, err.Error(), "secret")
}
