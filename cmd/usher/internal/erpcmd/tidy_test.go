package erpcmd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/userside/emulator"
)

// Of several customers that are asked for, those that are not there are named,
// whatever the server says of them.
func TestMissingCustomersAreNamed(t *testing.T) {
	line := []string{"customer", "get-data", "--customer-id", "8,1001,9", "--erp-version", "3.19"}
	for name, body := range map[string]string{
		"keyed":            `{"result":"OK","data":{"1001":{"id":1001,"login":"u1001"}}}`,
		"keyed, an error":  `{"result":"OK","data":{"1001":{"id":1001,"login":"u1001"},"error":"customer not found"}}`,
		"keyed, no ids":    `{"Result":"OK","data":{"1001":{"login":"u1001"},"error":{"text":"no"}}}`,
		"a list":           `{"result":"OK","data":[{"id":"1001","login":"u1001"}]}`,
		"one left, itself": `{"result":"OK","data":{"id":1001,"login":"u1001"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := worldOf(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }))
			for _, form := range []string{"--output=table", "--output=json"} {
				code, out, errs := w.run(append(line, form)...)
				require.Zero(t, code, errs)
				require.Contains(t, errs, "not found: 8, 9\n")
				require.Contains(t, out, "u1001")
				require.NotContains(t, out, "error")
			}
		})
	}
	for _, profile := range []emulator.Profile{emulator.Profile316, emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		t.Run(profile.String(), func(t *testing.T) {
			w := newERPWorld(t, profile)
			code, out, errs := w.run("customer", "get-data", "--customer-id", "1001,999999")
			require.Zero(t, code, errs)
			require.Contains(t, errs, "not found: 999999\n")
			require.Contains(t, out, "1001")
			code, _, errs = w.run("customer", "get-data", "--customer-id", "999998,999999")
			require.Equal(t, cli.ExitFailure, code)
			require.Contains(t, errs, "not found")
		})
	}
}

// Lists of ids are lists in JSON, also those that old servers write as one text, or not at all.
func TestListsAreLists(t *testing.T) {
	for body, want := range map[string]string{
		`{"Result":"OK","list":"101,102"}`:             `[101,102]`,
		`{"Result":"OK","list":"101"}`:                 `[101]`,
		`{"Result":"OK","list":""}`:                    `[]`,
		`{"Result":"OK"}`:                              `[]`,
		`{"result":"OK","data":[]}`:                    `[]`,
		`{"result":"OK","data":[101,102]}`:             `[101,102]`,
		`{"Result":"OK","Id":101}`:                     `[101]`,
		`{"Result":"OK","data":{"0":"101","2":"102"}}`: `["101","102"]`,
		`{"Result":"OK","data":"no id, this"}`:         `"no id, this"`,
	} {
		w := worldOf(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }))
		got, err := json.Marshal(w.decoded("customer", "get-customers-id", "--state-id", "2", "--erp-version", "3.19"))
		require.NoError(t, err)
		require.Equal(t, want, string(got), body)
	}
	w := worldOf(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"Result":"OK"}`) }))
	require.Equal(t, []any{}, w.decoded("customer", "msg", "--customer-id", "1001", "--erp-version", "3.19"))
	w = worldOf(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"Result":"OK","data":{"0":{"Text":"a"},"2":{"Text":"b"}}}`)
	}))
	require.Equal(t, []any{map[string]any{"Text": "a"}, map[string]any{"Text": "b"}}, w.decoded("customer", "msg", "--customer-id", "1001", "--erp-version", "3.19"))
}

// A server that finds addresses and MACs in another spelling alone is asked once more.
func TestLookupsInTheOtherSpelling(t *testing.T) {
	w := newERPWorld(t, emulator.ProfileModern)
	ip := w.firstIP(1001)
	mac := emulator.MAC{0, 0, 0x5e, 0, 0x53, 1}
	require.NoError(t, w.erp.SetIPMAC(ip, mac))
	b := ip.As4()
	decimal := fmt.Sprint(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))
	for _, bare := range []bool{false, true} {
		require.NoError(t, w.erp.SetQuirks(emulator.Quirks{BareLookups: bare}))
		for typer, values := range map[string][]string{"ip": {ip.String(), decimal}, "mac": {mac.String(), "00005e005301"}} {
			for _, value := range values {
				require.Contains(t, w.must("customer", "get-abon-id", "--data-typer", typer, "--data-value", value), "1001", "%s %s", typer, value)
			}
		}
	}
	calls := w.erp.Calls()["customer.get_abon_id"]
	for typer, value := range map[string]string{"ip": "203.0.113.77", "login": "nobody"} {
		code, _, errs := w.run("customer", "get-abon-id", "--data-typer", typer, "--data-value", value)
		require.Equal(t, cli.ExitFailure, code)
		require.Contains(t, errs, "not found")
	}
	require.Equal(t, 3, w.erp.Calls()["customer.get_abon_id"]-calls, "twice for the address, once for the login")
}
