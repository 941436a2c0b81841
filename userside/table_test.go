package userside

import (
	"bytes"
	"flag"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write generated files anew")

// sampleValue returns a good value for a parameter.
func sampleValue(p Param) string { return exampleValue(&p) }

// sampleArgs returns every obligatory parameter, and the first of each group.
func sampleArgs(a Action) url.Values {
	out := url.Values{}
	groups := map[string]bool{}
	for _, p := range a.Params {
		if p.Required || p.OneOf != "" && !groups[p.OneOf] {
			out.Set(p.Name, sampleValue(p))
			groups[p.OneOf] = true
		}
	}
	return out
}

// allArgs returns every parameter that a server of level v has.
func allArgs(a Action, v Version) url.Values {
	out := url.Values{}
	for _, p := range a.Params {
		if !v.Has(p.Since, p.Until) {
			continue
		}
		p.Enum = slices.DeleteFunc(p.Enum, func(w string) bool { return !v.Has(p.EnumSince[w], Version{}) })
		out.Set(p.Name, sampleValue(p))
	}
	return out
}

func TestTableIsSound(t *testing.T) {
	seen := map[string]bool{}
	methods := map[string]string{}
	for _, a := range Actions() {
		label := a.Label()
		assert.False(t, seen[label], "%s stands twice", label)
		seen[label] = true
		assert.Empty(t, methods[a.Method], "%s and %s have one method", label, methods[a.Method])
		methods[a.Method] = label
		assert.NotEmpty(t, a.Summary, label)
		assert.NotEmpty(t, a.Section, label)
		assert.Contains(t, "HML", a.Confidence, label)
		assert.False(t, strings.HasSuffix(a.Summary, "."), "%s: summary ends with a full stop", label)
		assert.True(t, a.Notes == "" || strings.HasSuffix(a.Notes, "."), "%s: notes end without full stop", label)
		assert.False(t, a.Danger && !a.Write, label)
		names := map[string]bool{}
		for _, p := range a.Params {
			where := label + " " + p.Name
			assert.False(t, names[p.Name], "%s stands twice", where)
			names[p.Name] = true
			assert.NotEmpty(t, p.Help, where)
			assert.Equal(t, p.Kind == KindEnum || p.Kind == KindIP && len(p.Enum) > 0, len(p.Enum) > 0, where)
			assert.Equal(t, p.Was == "", p.WasUntil.IsZero(), where)
			assert.False(t, p.Required && p.OneOf != "", where)
			for word := range p.EnumSince {
				assert.Contains(t, p.Enum, word, where)
			}
			if p.Needs != "" {
				_, ok := a.Param(p.Needs)
				assert.True(t, ok, where)
			}
			_, bad := p.check(sampleValue(p), Version{})
			assert.Nil(t, bad, where)
		}
	}
	for _, act := range []action{actCustomerBindings, actCustomerSetMAC, actCustomerIDs, actCustomerGetData, actCustomerFind,
		actCustomerStateChange, actDeviceGetData, actCommutationGetData, actSystemInfo} {
		require.NotNil(t, act.row(), act)
	}
}

// The customer section has exactly the actions of API page section 3.
func TestTableHasTheWholeCustomerSection(t *testing.T) {
	want := strings.Fields(`add abon_hist change_balance change_billing change_date_connect delete edit get_activity_counter get_abon_id
		get_customer_id get_customer_group get_customers_id get_data get_ip_port_device_commutation get_last_ip get_mac_history
		get_max_agreement_number ip_add ip_delete ip_subnet_add ip_subnet_delete list_tarif_available mark_add mark_delete merge msg
		msg_add msg_add_to_customer pass_change service_add service_remove set_mac_by_ip state_change tarif_change to_ex to_normal`)
	var got []string
	writes := 0
	for _, a := range Actions() {
		if a.Category == "customer" {
			got = append(got, a.Name)
			if a.Write {
				writes++
			}
		}
	}
	require.ElementsMatch(t, want, got)
	require.Equal(t, 23, writes, "the list of writes of API page section 3")
}

func TestActionsAreCopies(t *testing.T) {
	a, ok := FindAction("customer", "ip_delete")
	require.True(t, ok)
	a.Params[1].Enum[0] = "x"
	a.Params[1].EnumSince["all"] = Version{}
	again, _ := FindAction("customer", "ip_delete")
	require.Equal(t, []string{"-1", "all"}, again.Params[1].Enum)
	require.False(t, again.Params[1].EnumSince["all"].IsZero())
	Actions()[0].Params[0].Name = "x"
	require.NotEqual(t, "x", Actions()[0].Params[0].Name)
	_, ok = FindAction("customer", "get_shoes")
	require.False(t, ok)
}

// Every row has its method on Client, and every method of Client that calls
// something has its row.
func TestEveryRowHasItsMethod(t *testing.T) {
	beside := map[string]bool{ // not one row each
		"Call": true, "Prepare": true, "Level": true, "Format": true, "CloseIdle": true, "Try": true, "Pending": true,
		"Customer": true, "CustomerByAccount": true, // get_data for one
		"CustomerCommutation": true, "CustomerChain": true, // commutation get_data
		"Budget": true, "CustomerBindingList": true, // get_ip_port_device_commutation
	}
	rows := map[string]bool{}
	client := reflect.TypeFor[*Client]()
	for _, a := range Actions() {
		rows[a.Method] = true
		m, ok := client.MethodByName(a.Method)
		if assert.True(t, ok, "%s: Client has no method %s", a.Label(), a.Method) {
			assert.Equal(t, "context.Context", m.Type.In(1).String(), a.Method)
			assert.Equal(t, "error", m.Type.Out(m.Type.NumOut()-1).String(), a.Method)
		}
	}
	for m := range client.Methods() {
		assert.True(t, rows[m.Name] || beside[m.Name], "no row has the method %s", m.Name)
	}
}

func TestActionsDoc(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, WriteActionsDoc(&b))
	file := filepath.Join("..", "docs", "userside-actions.md")
	if *update {
		require.NoError(t, os.WriteFile(file, b.Bytes(), 0o644))
	}
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, b.String(), string(got), "run go test ./userside -run TestActionsDoc -update")
	for _, a := range Actions() {
		require.Contains(t, b.String(), "\n### "+a.Label()+"\n")
		for _, p := range a.Params {
			require.Contains(t, b.String(), "`--"+strings.ReplaceAll(p.Name, "_", "-")+"`")
		}
	}
}
