package emulator_test

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

// emulatedOnly are actions that the emulator knows and the table of the client
// does not: live polls, which are refused.
func emulatedOnly() []string { return []string{"device.get_iface_info", "device.read_fdb"} }

// The tables of client and emulator were written apart from the API page: they
// must agree, both ways.
func TestTablesAgree(t *testing.T) {
	mine := map[string]emulator.ActionRow{}
	for _, a := range emulator.ActionRows() {
		require.NotContains(t, mine, a.Name)
		mine[a.Name] = a
	}
	for _, name := range emulatedOnly() {
		require.Contains(t, mine, name)
		delete(mine, name)
	}
	for _, theirs := range userside.Actions() {
		t.Run(theirs.Label(), func(t *testing.T) {
			a, ok := mine[theirs.Label()]
			require.True(t, ok, "not emulated")
			delete(mine, theirs.Label())
			require.Equal(t, theirs.Write, a.Write, "write")
			require.Equal(t, theirs.Since.String(), a.Since.String(), "since")
			require.Equal(t, theirs.Until.String(), a.Until.String(), "until")
			var need []string
			for _, p := range theirs.Params {
				if p.Required {
					need = append(need, p.Name)
				}
			}
			slices.Sort(need)
			slices.Sort(a.Need)
			require.Equal(t, fmt.Sprint(need), fmt.Sprint(a.Need), "obligatory parameters")
		})
	}
	require.Empty(t, mine, "emulated, but not in the table of the client")
}

// Obligatory by version, former names, and groups of which one is obligatory:
// what the table says of a server must be what the emulator of that server does.
func TestTablesAgreeOnTheWire(t *testing.T) {
	for _, profile := range emulator.Profiles() {
		v := profile.Version()
		for _, a := range userside.Actions() {
			if a.Category != "customer" || !v.Has(a.Since, a.Until) {
				continue
			}
			t.Run(profile.String()+" "+a.Label(), func(t *testing.T) {
				e, _ := connect(t, emulator.Options{Profile: profile, Customers: 5})
				groups := map[string]bool{}
				for i, p := range a.Params {
					if p.OneOf != "" {
						groups[p.OneOf] = true
					}
					if !p.RequiredOn(v) || !v.Has(p.Since, p.Until) {
						continue
					}
					// All obligatory ones but this.
					params := ""
					for j, q := range a.Params {
						if j != i && q.RequiredOn(v) {
							params += "&" + q.WireName(v) + "=1"
						}
					}
					want := p.WireName(v)
					if profile == emulator.ProfileLegacy {
						want = p.Name // it takes both, and speaks of today's
					}
					require.Contains(t, wire(e, a.Name, params), "parameter "+want+" is missing")
				}
				if len(groups) > 0 {
					body := wire(e, a.Name, "")
					require.Regexp(t, "missing|no condition given", body)
				}
			})
		}
	}
}

// wire sends a call of cat=customer by POST, with both names of the action.
func wire(e *emulator.Emulator, action, params string) string {
	req := httptest.NewRequest("POST", "/api.php?key="+key+"&cat=customer&subcat="+action+"&action="+action+params, nil)
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, req)
	return rec.Body.String()
}
