package userside

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every row of the failure table, API page section 2.2.
func TestFailureTable(t *testing.T) {
	getData := func(c *Client) error { _, err := c.Customer(ctx, 7); return err }
	lookup := func(c *Client) error { _, err := c.FindCustomers(ctx, LookupLogin, "u1", false); return err }
	setMAC := func(c *Client) error { return c.SetMACByIP(ctx, ip("100.64.0.10"), mac("00005e005301")) }
	bindings := func(c *Client) error { _, err := c.CustomerBindings(ctx); return err }
	page := "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
	tests := map[string]struct {
		status  int
		body    string
		do      func(*Client) error
		kind    error
		outcome Outcome
		text    string
	}{
		"documented rule (new): 400 and error":        {400, `{"error":"Undefined request"}`, setMAC, ErrRefused, OutcomeRefused, "Undefined request"},
		"documented rule (new): with marker":          {400, `{"result":"ERROR","error":"Bad ip"}`, setMAC, ErrRefused, OutcomeRefused, "Bad ip"},
		"documented rule (new): capital Error":        {422, `{"Error":"Bad ip"}`, setMAC, ErrRefused, OutcomeRefused, "Bad ip"},
		"documented rule (old): 200 and ErrorText":    {200, `{"Result":"ERROR","ErrorText":"No such ip"}`, setMAC, ErrRefused, OutcomeRefused, "No such ip"},
		"mixed: 200, OK and error":                    {200, `{"result":"OK","error":"No such ip"}`, setMAC, ErrRefused, OutcomeRefused, "No such ip"},
		"mixed: 200, result false":                    {200, `{"result":false}`, setMAC, ErrRefused, OutcomeRefused, ""},
		"mixed: 200, result false with Error":         {200, `{"result":false,"Error":"no"}`, setMAC, ErrRefused, OutcomeRefused, "no"},
		"mixed: error is an object":                   {200, `{"result":"OK","error":{"code":5,"text":"no &amp; no"}}`, setMAC, ErrRefused, OutcomeRefused, "5, no & no"},
		"unknown or forbidden key: 403":               {403, `{"error":"Access denied"}`, bindings, ErrPermission, OutcomePermission, "Access denied"},
		"unknown or forbidden key: 403 page":          {403, page, bindings, ErrPermission, OutcomePermission, "502 Bad Gateway"},
		"unknown or forbidden key: 401":               {401, ``, bindings, ErrPermission, OutcomePermission, ""},
		"not JSON: PHP warning before JSON":           {200, "<br />\n<b>Warning</b>: mysql_fetch() in /var/www/api.php\n{\"result\":\"OK\"}", bindings, ErrMalformed, OutcomeMalformed, "<b>Warning</b>: mysql_fetch()"},
		"not JSON: warning after JSON":                {200, `{"result":"OK"}` + "\nNotice: x", setMAC, ErrMalformed, OutcomeMalformed, "text after the document"},
		"not JSON: login page":                        {200, "<!DOCTYPE html><title>Login</title>", setMAC, ErrMalformed, OutcomeMalformed, "Login"},
		"not JSON: proxy page with 502":               {502, page, bindings, ErrUnavailable, OutcomeUnavailable, "502 Bad Gateway"},
		"not JSON: page with 404":                     {404, page, getData, ErrMalformed, OutcomeMalformed, "no JSON document"},
		"not JSON: empty answer":                      {200, "", setMAC, ErrMalformed, OutcomeMalformed, "empty answer"},
		"not JSON: white space":                       {200, " \n", setMAC, ErrMalformed, OutcomeMalformed, "truncated"},
		"not JSON: a number":                          {200, "5", setMAC, ErrMalformed, OutcomeMalformed, "no JSON document"},
		"not JSON: truncated":                         {200, `{"result":"OK","data":[{"customer_id":1,"ip":"100.`, bindings, ErrMalformed, OutcomeMalformed, "truncated after 50 bytes"},
		"unknown action: 400":                         {400, `{"error":"Unknown Action"}`, bindings, ErrRefused, OutcomeRefused, "Unknown Action"},
		"unknown action: 200 and only error":          {200, `{"error":"unknown_method"}`, bindings, ErrRefused, OutcomeRefused, "unknown_method"},
		"unknown action: 404 and error":               {404, `{"error":"unknown_method"}`, bindings, ErrRefused, OutcomeRefused, "unknown_method"},
		"missing parameter: 200, error in small":      {200, `{"result":"error","error":"Missing: customer_id"}`, setMAC, ErrRefused, OutcomeRefused, "Missing: customer_id"},
		"write by GET: 405":                           {405, `{"error":"POST only"}`, setMAC, ErrRefused, OutcomeRefused, "POST only"},
		"no such customer, get_data: OK without data": {200, `{"result":"OK"}`, getData, ErrNotFound, OutcomeOK, ""},
		"no such customer, get_data: data null":       {200, `{"result":"OK","data":null}`, getData, ErrNotFound, OutcomeOK, ""},
		"no such customer, get_data: ERROR at 200":    {200, `{"result":"ERROR","error":"not found"}`, getData, ErrNotFound, OutcomeNotFound, "not found"},
		"no such customer, get_data: 404":             {404, `{"error":"not found"}`, getData, ErrNotFound, OutcomeNotFound, "not found"},
		"no such customer, get_data: 400 is an error": {400, `{"error":"not found"}`, getData, ErrRefused, OutcomeRefused, "not found"},
		"get_data: ERROR with data is an error":       {200, `{"result":"ERROR","data":{"id":7},"error":"x"}`, getData, ErrRefused, OutcomeRefused, "x"},
		"no match, get_abon_id: ERROR without Id":     {200, `{"result":"ERROR"}`, lookup, ErrNotFound, OutcomeNotFound, "ERROR"},
		"no match, get_abon_id: old":                  {200, `{"Result":"ERROR","ErrorText":""}`, lookup, ErrNotFound, OutcomeNotFound, ""},
		"no match, other lookups: id 0":               {200, `{"result":"OK","id":0}`, lookup, ErrNotFound, OutcomeOK, ""},
		"no match: Id absent":                         {200, `{"result":"OK"}`, lookup, ErrNotFound, OutcomeOK, ""},
		"hook: result 0 and msg":                      {200, `{"result":"0","msg":"done &amp; dusted"}`, setMAC, ErrUnknownShape, OutcomeUnknownShape, "done & dusted"},
		"hook: result 1 and msg":                      {200, `{"result":"1","msg":"failed"}`, setMAC, ErrUnknownShape, OutcomeUnknownShape, "failed"},
		"hook: number 1 is not OK":                    {200, `{"result":1}`, setMAC, ErrUnknownShape, OutcomeUnknownShape, `result is "1"`},
		"no marker":                                   {200, `{}`, setMAC, ErrUnknownShape, OutcomeUnknownShape, "no result"},
		"a bare list":                                 {200, `[]`, setMAC, ErrUnknownShape, OutcomeUnknownShape, "no result"},
		"server error":                                {500, `{"error":"memory"}`, bindings, ErrUnavailable, OutcomeUnavailable, "memory"},
		"too many requests":                           {429, `slow down`, bindings, ErrUnavailable, OutcomeUnavailable, "slow down"},
		"request time-out":                            {408, ``, bindings, ErrUnavailable, OutcomeUnavailable, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, answerWith(tt.status, tt.body))
			o := &observed{}
			e := errorOf(t, tt.do(newTestClient(t, s, func(opts *Options) { opts.Observer = o })), tt.kind)
			require.Equal(t, tt.status, e.Status)
			require.Contains(t, e.Text, tt.text)
			require.Len(t, s.seen(), 1)
			require.Equal(t, []string{e.Action + " " + string(tt.outcome)}, o.all())
		})
	}
}

func TestFailureSeveralIDsSomeMissing(t *testing.T) {
	for name, doc := range map[string]string{
		"member error beside the found ones": `{"result":"OK","data":{"7":{"id":7,"state_id":2},"error":"8 not found"}}`,
		"error member is an object":          `{"result":"OK","data":{"7":{"id":7,"state_id":2},"error":{"text":"no"}}}`,
		"no member at all":                   `{"result":"OK","data":{"7":{"id":7,"state_id":2}}}`,
		"one left is not keyed":              `{"result":"OK","data":{"id":7,"state_id":"2"}}`,
		"list for a map":                     `{"result":"OK","data":[{"id":7,"state_id":2}]}`,
		"map by key, no id inside":           `{"result":"OK","data":{"7":{"state_id":2}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := clientOf(t, doc).Customers(ctx, []int64{8, 7, 8})
			require.NoError(t, err)
			require.Len(t, got.Customers, 1)
			require.EqualValues(t, 7, got.Customers[0].ID)
			require.Equal(t, Int{2, true}, got.Customers[0].State)
			require.Equal(t, []int64{8}, got.Missing)
			require.Zero(t, got.Defects.Count)
		})
	}
}

// A card that nobody asked for says nothing of anybody, and neither do two cards of one customer that differ.
func TestFailureCardsOfOthers(t *testing.T) {
	const one, other, third = `"1":{"id":1,"state_id":2}`, `"2":{"id":2,"state_id":2}`, `"3":{"id":3,"state_id":2}`
	for name, tt := range map[string]struct {
		data    string
		asked   []int64
		want    []int64
		missing []int64
		defect  string // of an answer with a card; else part of the error
	}{
		"everybody":                   {`{` + one + `,` + other + `,` + third + `}`, []int64{1}, []int64{1}, nil, "2 cards of customers who were not asked for"},
		"another one":                 {`{"id":3,"state_id":2}`, []int64{1}, nil, nil, "1 cards of customers who were not asked for"},
		"another one of several":      {`{` + one + `,` + third + `}`, []int64{1, 2}, []int64{1}, nil, "1 cards of customers who were not asked for"},
		"others alone":                {`[{"id":3},{"id":4}]`, []int64{1, 2}, nil, nil, "2 cards of customers who were not asked for"},
		"two that differ":             {`[{"id":1,"state_id":2},{"id":1,"state_id":0},{"id":2,"state_id":2}]`, []int64{1, 2}, []int64{2}, nil, "two different cards of 1 customers"},
		"two that differ, asked once": {`[{"id":1,"state_id":2},{"id":1,"state_id":0}]`, []int64{1}, nil, nil, "two different cards of 1 customers"},
		"the same twice":              {`[{"id":1,"state_id":2},{"id":1,"state_id":2}]`, []int64{1, 2}, []int64{1}, []int64{2}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := clientOf(t, `{"result":"OK","data":`+tt.data+`}`).Customers(ctx, tt.asked)
			if tt.want == nil {
				require.ErrorIs(t, err, ErrUnknownShape)
				require.ErrorContains(t, err, tt.defect)
				_, err = clientOf(t, `{"result":"OK","data":`+tt.data+`}`).Customer(ctx, tt.asked[0])
				require.ErrorIs(t, err, ErrUnknownShape)
				return
			}
			require.NoError(t, err)
			var ids []int64
			for i := range got.Customers {
				ids = append(ids, got.Customers[i].ID)
			}
			require.Equal(t, tt.want, ids)
			require.Equal(t, tt.missing, got.Missing)
			require.Equal(t, tt.defect != "", got.Defects.Count > 0)
			if tt.defect != "" {
				require.Equal(t, tt.defect, got.Defects.First[0].What)
			}
		})
	}
}

func TestFailureEmptyListFilter(t *testing.T) {
	for _, doc := range []string{`{"result":"OK"}`, `{"result":"OK","data":[]}`, `{"result":"OK","data":null}`, `{"Result":"OK","list":""}`} {
		ids, err := clientOf(t, doc).CustomerIDs(ctx, CustomerFilter{State: new(2)})
		require.NoError(t, err, doc)
		require.Empty(t, ids, doc)
	}
}

// The success half of section 2.1 and the key looseness of section 8.
func TestLoosenessEnvelopeKeys(t *testing.T) {
	for name, doc := range map[string]string{
		"modern":                  `{"result":"OK","data":[101,102]}`,
		"legacy":                  `{"Result":"OK","Data":["101","102"],"ErrorText":""}`,
		"shouted":                 `{"RESULT":"ok","DATA":[101,102],"ERROR":null}`,
		"true":                    `{"result":true,"data":[101,102],"error":false}`,
		"list as text":            `{"Result":"OK","list":"101,102"}`,
		"first non-empty wins":    `{"Result":"","result":"OK","Data":[],"data":[101,102],"Error":"","error":""}`,
		"second payload ignored":  `{"result":"OK","data":[101,102],"Data":[103]}`,
		"keyed":                   `{"result":"OK","data":{"0":101,"2":102}}`,
		"objects":                 `{"result":"OK","data":[{"id":101},{"id":102}]}`,
		"id list":                 `{"result":"OK","Id":[101,102]}`,
		"unknown fields":          `{"result":"OK","took":0.5,"data":[101,102],"meta":null}`,
		"byte order mark":         "\uFEFF" + `{"result":"OK","data":[101,102]}`,
		"error zero":              `{"result":"OK","error":0,"data":[101,102]}`,
		"zeros and repeats":       `{"result":"OK","data":[0,101,"102"]}`,
		"white space around":      "\r\n {\"result\" : \"OK\" ,\t\"data\" : [ 101 , 102 ] } \n",
		"marker after everything": `{"data":[101,102],"error":"","result":"OK"}`,
	} {
		t.Run(name, func(t *testing.T) {
			ids, err := clientOf(t, doc).CustomerIDs(ctx, CustomerFilter{State: new(2)})
			require.NoError(t, err)
			require.Equal(t, IDs{101, 102}, ids)
		})
	}
}

func TestLoosenessFirstMarkerWins(t *testing.T) {
	_, err := clientOf(t, `{"Result":"ERROR","result":"OK"}`).CustomerIDs(ctx, CustomerFilter{State: new(2)})
	requireKind(t, err, ErrRefused)
}

func TestLoosenessID(t *testing.T) {
	for doc, want := range map[string]IDs{
		`{"result":"OK","Id":1001}`: {1001}, `{"Result":"OK","Id":"1001"}`: {1001}, `{"result":"OK","id":[1001,"1002"]}`: {1001, 1002},
	} {
		got, err := clientOf(t, doc).FindCustomers(ctx, LookupPhone, "380000000000", true)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestLoosenessGzipWithoutHeader(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(manyRows(500))
	require.NoError(t, z.Close())
	t.Run("whole", func(t *testing.T) {
		got, err := clientOf(t, packed.String()).CustomerBindings(ctx)
		require.NoError(t, err)
		require.Len(t, got.Rows, 500)
	})
	t.Run("announced", func(t *testing.T) {
		s := newTestServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed.Bytes())
		})
		got, err := newTestClient(t, s).CustomerBindings(ctx)
		require.NoError(t, err)
		require.Len(t, got.Rows, 500)
	})
	t.Run("announced but plain", func(t *testing.T) {
		s := newTestServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(manyRows(5))
		})
		got, err := newTestClient(t, s).CustomerBindings(ctx)
		require.NoError(t, err)
		require.Len(t, got.Rows, 5)
	})
	t.Run("truncated", func(t *testing.T) {
		_, err := clientOf(t, packed.String()[:packed.Len()/2]).CustomerBindings(ctx)
		requireKind(t, err, ErrMalformed)
	})
	t.Run("damaged", func(t *testing.T) {
		b := bytes.Clone(packed.Bytes())
		b[len(b)-6] ^= 0xff
		_, err := clientOf(t, string(b)).CustomerBindings(ctx)
		requireKind(t, err, ErrMalformed)
	})
	t.Run("bomb", func(t *testing.T) {
		var bomb bytes.Buffer
		z := gzip.NewWriter(&bomb)
		_, _ = z.Write([]byte(`{"result":"`))
		_, _ = z.Write(bytes.Repeat([]byte("x"), 1<<20))
		require.NoError(t, z.Close())
		_, err := clientOf(t, bomb.String(), func(o *Options) { o.MaxBody = 64 << 10 }).CustomerBindings(ctx)
		require.Contains(t, errorOf(t, err, ErrMalformed).Text, "larger than 65536 bytes")
	})
}

func TestBodyLimit(t *testing.T) {
	doc := `{"result":"OK","data":[1,2,3]}`
	limit := func(n int) func(*Options) { return func(o *Options) { o.MaxBody = int64(n) } }
	_, err := clientOf(t, doc, limit(len(doc))).CustomerIDs(ctx, CustomerFilter{State: new(1)})
	require.NoError(t, err)
	_, err = clientOf(t, doc, limit(len(doc)-1)).CustomerIDs(ctx, CustomerFilter{State: new(1)})
	require.Contains(t, errorOf(t, err, ErrMalformed).Text, fmt.Sprintf("larger than %d bytes", len(doc)-1))
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{`{"result":"OK","data":{}}`, `{"Result":"ERROR","ErrorText":"x"}`, `{"result":"0","msg":"m"}`, "\xef\xbb\xbf{}", `[]`, `<html>`,
		`{"result":"OK","Id":[1]}`, `{"data":[{"id":1}],"error":{"a":["b"]}}`, "\x1f\x8b\x08"} {
		f.Add([]byte(s))
	}
	c := &Client{redactor: newRedactor(testKey), opts: Options{Location: time.UTC}}
	f.Fuzz(func(t *testing.T, doc []byte) {
		var customers Customers
		b := newBody(bytes.NewReader(doc), nil, 1<<16, 1<<10)
		a, err := b.decode(sink{whole: func(v value) { c.readCustomers(&customers, v, nil) }})
		if err != nil {
			requireNoKey(t, c.malformed(actCustomerBindings.row(), 200, b, err).Error.Error())
			return
		}
		if fail := c.judge(actCustomerBindings.row(), 200, a, sink{}); fail != nil && len(fail.Text) > maxText+3 {
			t.Fatal("unbounded text")
		}
		for _, got := range customers.Customers {
			if got.ID <= 0 {
				t.Fatalf("customer %d", got.ID)
			}
		}
	})
}
