package userside

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The corpus in testdata/corpus has answers of both generations with all
// quirks of API page section 8, each beside a file of what must be read in it:
// head lines (call, version, status, gzip, why), an empty line, and every
// value that is not zero.

// corpusCalls are the typed calls by action.
func corpusCalls() map[string]func(*Client, url.Values) (any, error) {
	id := func(v url.Values, name string) int64 { n, _ := strconv.ParseInt(v.Get(name), 10, 64); return n }
	return map[string]func(*Client, url.Values) (any, error){
		"customer.get_data": func(c *Client, v url.Values) (any, error) {
			if ids := v.Get("customer_id"); !strings.Contains(ids, ",") {
				return c.Customer(ctx, id(v, "customer_id"))
			}
			ids, _ := listIDs(v.Get("customer_id"))
			return c.Customers(ctx, ids)
		},
		"customer.get_abon_id": func(c *Client, v url.Values) (any, error) {
			return c.FindCustomers(ctx, Lookup(v.Get("data_typer")), v.Get("data_value"), false)
		},
		"customer.get_customer_id": func(c *Client, v url.Values) (any, error) {
			return c.LookUpCustomers(ctx, Lookup(v.Get("data_typer")), v.Get("data_value"), true)
		},
		"customer.get_customers_id": func(c *Client, v url.Values) (any, error) {
			return c.CustomerIDs(ctx, CustomerFilter{Name: v.Get("name"), NameLike: true})
		},
		"customer.get_ip_port_device_commutation": func(c *Client, _ url.Values) (any, error) { return c.CustomerBindings(ctx) },
		"customer.get_customer_group":             func(c *Client, _ url.Values) (any, error) { return c.CustomerGroups(ctx) },
		"customer.get_activity_counter":           func(c *Client, _ url.Values) (any, error) { return c.ActivityCounter(ctx, ActiveOnNetwork) },
		"customer.get_last_ip":                    func(c *Client, _ url.Values) (any, error) { return c.LastIP(ctx) },
		"customer.get_max_agreement_number":       func(c *Client, v url.Values) (any, error) { return c.MaxAgreementNumber(ctx, id(v, "billing_id")) },
		"customer.get_mac_history":                func(c *Client, v url.Values) (any, error) { return c.MACHistory(ctx, id(v, "customer_id")) },
		"customer.abon_hist":                      func(c *Client, v url.Values) (any, error) { return c.CustomerHistory(ctx, id(v, "customer_id")) },
		"customer.msg": func(c *Client, v url.Values) (any, error) {
			return c.Messages(ctx, MessageFilter{Customer: id(v, "customer_id")})
		},
		"customer.list_tarif_available": func(c *Client, v url.Values) (any, error) { return c.AvailableTariffs(ctx, id(v, "customer_id")) },
		"customer.add": func(c *Client, v url.Values) (any, error) {
			return c.AddCustomer(ctx, NewCustomer{FullName: v.Get("fio"), Potential: true})
		},
		"customer.msg_add": func(c *Client, v url.Values) (any, error) {
			return c.AddMessage(ctx, NewMessage{Customer: id(v, "customer_id"), Text: v.Get("text")})
		},
		"customer.mark_add": func(c *Client, v url.Values) (any, error) {
			return nil, c.AddMark(ctx, id(v, "customer_id"), id(v, "mark_id"))
		},
		"customer.state_change": func(c *Client, v url.Values) (any, error) { return nil, c.ChangeState(ctx, id(v, "customer_id"), 2) },
		"commutation.get_data": func(c *Client, v url.Values) (any, error) {
			return c.CommutationOf(ctx, CommutationFilter{ObjectType: v.Get("object_type"), ObjectID: id(v, "object_id"), Finish: v.Has("is_finish_data")})
		},
		"device.get_data": func(c *Client, v url.Values) (any, error) {
			return c.Devices(ctx, DeviceFilter{ObjectID: id(v, "object_id")})
		},
		"device.get_device_id": func(c *Client, v url.Values) (any, error) {
			return c.FindDevice(ctx, "switch", DeviceByIP, v.Get("data_value"))
		},
		"device.get_mac_list": func(c *Client, v url.Values) (any, error) { return c.DeviceMACs(ctx, id(v, "object_id")) },
		"device.find_mac":     func(c *Client, _ url.Values) (any, error) { return c.FindMAC(ctx, mac("00005e005301")) },
		"device.get_ont_data": func(c *Client, v url.Values) (any, error) { return c.ONT(ctx, v.Get("id")) },
		"module.get_user_list": func(c *Client, v url.Values) (any, error) {
			return c.UserList(ctx, UserListFilter{ByBillingUser: v.Has("is_id_billing_user_id")})
		},
		"module.get_user_state_list":       func(c *Client, _ url.Values) (any, error) { return c.UserStates(ctx) },
		"module.get_connect_list":          func(c *Client, _ url.Values) (any, error) { return c.Connections(ctx, ConnectionFilter{}) },
		"module.get_device_list":           func(c *Client, _ url.Values) (any, error) { return c.ModuleDevices(ctx, "switch") },
		"module.get_tariff_list":           func(c *Client, _ url.Values) (any, error) { return c.ModuleTariffs(ctx) },
		"module.get_system_information":    func(c *Client, _ url.Values) (any, error) { return c.SystemInformation(ctx) },
		"module.get_api_information":       func(c *Client, _ url.Values) (any, error) { return c.APIInformation(ctx) },
		"module.get_supported_method_list": func(c *Client, _ url.Values) (any, error) { return c.SupportedMethods(ctx) },
		"tariff.get":                       func(c *Client, _ url.Values) (any, error) { return c.Tariffs(ctx) },
		"system.get_system_info":           func(c *Client, _ url.Values) (any, error) { return c.SystemInfo(ctx) },
	}
}

func TestCorpus(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "corpus", "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	calls := corpusCalls()
	used := map[string]bool{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		wantFile := strings.TrimSuffix(file, ".json") + ".want"
		body, err := os.ReadFile(file)
		require.NoError(t, err)
		text, err := os.ReadFile(wantFile)
		require.NoError(t, err, "%s has no expected values", name)
		head, want, found := strings.Cut(string(text), "\n\n")
		require.True(t, found, "%s: no empty line", wantFile)
		fields := map[string]string{}
		for line := range strings.Lines(head) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			fields[key] = value
		}
		t.Run(name, func(t *testing.T) {
			label, query, _ := strings.Cut(fields["call"], "?")
			args, err := url.ParseQuery(query)
			require.NoError(t, err)
			call, ok := calls[label]
			require.True(t, ok, "no call %q", label)
			used[label] = true
			status, err := strconv.Atoi(cmp.Or(fields["status"], "200"))
			require.NoError(t, err)
			doc := strings.TrimSuffix(string(body), "\n")
			if fields["gzip"] == "yes" {
				var b bytes.Buffer
				z := gzip.NewWriter(&b)
				_, _ = z.Write([]byte(doc))
				require.NoError(t, z.Close())
				doc = b.String()
			}
			s := newTestServer(t, answerWith(status, doc))
			c := newTestClient(t, s, func(o *Options) { o.ERPVersion = version(t, cmp.Or(fields["version"], "3.21")) })
			got, err := call(c, args)
			var b strings.Builder
			if err != nil {
				fmt.Fprintf(&b, "error = %s\n", err)
				requireNoKey(t, err.Error())
			} else {
				dump(&b, "", reflect.ValueOf(got))
			}
			if b.Len() == 0 {
				b.WriteString("nothing\n")
			}
			if *update {
				require.NoError(t, os.WriteFile(wantFile, []byte(head+"\n\n"+b.String()), 0o644))
				return
			}
			require.Equal(t, want, b.String())
			for _, seen := range s.seen() {
				require.Equal(t, label, seen.query.Get("cat")+"."+cmp.Or(seen.query.Get("action"), seen.query.Get("subcat"), seen.query.Get("request")))
			}
			// The same answer can be read without knowing the action.
			raw, err := c.Call(ctx, strings.Split(label, ".")[0], strings.Split(label, ".")[1], fullArgs(label, args))
			if err == nil {
				require.Equal(t, strings.TrimPrefix(string(body), "\ufeff"), string(raw.Raw())+"\n")
				_, err = json.Marshal(raw.Data())
				require.NoError(t, err)
			}
		})
	}
	for label := range calls {
		require.True(t, used[label], "the corpus has no answer of %s", label)
	}
	wants, err := filepath.Glob(filepath.Join("testdata", "corpus", "*.want"))
	require.NoError(t, err)
	require.Len(t, wants, len(files))
}

// fullArgs completes the arguments of a head line.
func fullArgs(label string, args url.Values) url.Values {
	category, name, _ := strings.Cut(label, ".")
	a, _ := FindAction(category, name)
	out := sampleArgs(a)
	for k, v := range args {
		out[k] = v
	}
	return out
}

// dump writes one line for each value in v that is not zero.
func dump(b *strings.Builder, path string, v reflect.Value) {
	if !v.IsValid() || v.IsZero() && path != "" {
		return
	}
	line := func(s string) { fmt.Fprintf(b, "%s = %s\n", strings.TrimPrefix(cmp.Or(path, "value"), "."), s) }
	if !v.CanInterface() {
		return
	}
	switch x := v.Interface().(type) {
	case netip.Addr:
		line(x.String())
		return
	case MAC:
		line(x.String())
		return
	case time.Time:
		line(x.Format(time.DateTime))
		return
	case Int:
		line(strconv.FormatInt(x.Value, 10))
		return
	case Float:
		line(strconv.FormatFloat(x.Value, 'f', -1, 64))
		return
	case Bool:
		line(strconv.FormatBool(x.Value))
		return
	case String:
		line(strconv.Quote(string(x)))
		return
	case Map[any]:
		text, _ := json.Marshal(x)
		line(string(text))
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		dump(b, path, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			dump(b, path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			e := v.Index(i)
			at := fmt.Sprintf("%s[%d]", path, i)
			if e.Kind() == reflect.Struct && e.NumField() == 2 && e.Type().Field(0).Name == "Key" && e.Type().Field(1).Name == "Value" {
				at, e = fmt.Sprintf("%s[%q]", path, e.Field(0).String()), e.Field(1)
			}
			dump(b, at, e)
		}
	case reflect.String:
		line(strconv.Quote(v.String()))
	default:
		line(fmt.Sprint(v.Interface()))
	}
}
