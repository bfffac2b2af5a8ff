<?php
// The checks of PHP's PDO; see conformance_test.go for what they print.
function connect(array $options = []): PDO {
    $dsn = "pgsql:host=" . getenv("PGHOST") . ";port=" . getenv("PGPORT") . ";dbname=" . getenv("PGDATABASE")
        . ";sslmode=verify-full;sslrootcert=" . getenv("PGSSLROOTCERT");
    return new PDO($dsn, getenv("PGUSER"), getenv("PGPASSWORD"), $options + [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
}

function that(bool $ok, $what): void {
    if (!$ok) throw new RuntimeException("got " . var_export($what, true));
}

function check(string $name, callable $f): void {
    try {
        $f();
        echo "$name ok\n";
    } catch (Throwable $e) {
        echo "$name failed: ", substr(preg_replace('/\s+/', " ", $e->getMessage()), 0, 200), "\n";
    }
}

echo "version ", phpversion("pdo_pgsql"), "\n";
check("types", function () {
    $r = connect()->query("select 1.50::numeric, true, '\\x00ff'::bytea, 'é', null")->fetch(PDO::FETCH_NUM);
    that($r[0] === "1.50" && $r[1] === true && stream_get_contents($r[2]) === "\x00\xff" && $r[3] === "é" && $r[4] === null, $r);
});
check("parameters", function () {
    foreach ([true, false] as $emulated) {
        $s = connect([PDO::ATTR_EMULATE_PREPARES => $emulated])->prepare("select v from t where id = :id and v <> :v");
        $s->execute(["id" => 2, "v" => "it's \\ é"]);
        that($s->fetchColumn() === "v2", $emulated);
    }
});
check("prepared", function () {
    $s = connect()->prepare("select v from t where id = ?");
    foreach ([1, 2, 3] as $i) {
        $s->execute([$i]);
        that($s->fetchColumn() === "v$i", $i);
    }
});
check("transaction", function () {
    $c = connect();
    $c->beginTransaction();
    $c->exec("insert into t values (50, 'x')");
    $c->rollBack();
    that($c->query("select count(*) from t where id = 50")->fetchColumn() === 0, "rows");
});
check("refused", function () {
    $c = connect();
    try {
        $c->exec("drop table t");
        that(false, "it ran");
    } catch (PDOException $e) {
        that($e->getCode() === "42501", $e->getCode());
    }
    that($c->query("select 1")->fetchColumn() === 1, "nothing");
});
check("large", function () {
    $n = 0;
    foreach (connect()->query("select i, repeat('x', 100) from generate_series(1, 100000) i") as $row) $n++;
    that($n === 100000, $n);
});
check("cursor", function () {
    $c = connect();
    $c->beginTransaction();
    $s = $c->prepare("select i from generate_series(1, 1000) i", [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $s->execute();
    for ($sum = 0; ($i = $s->fetchColumn()) !== false; $sum += $i);
    that($sum === 500500, $sum);
});
check("copy", function () {
    $c = connect();
    $c->beginTransaction();
    that($c->pgsqlCopyFromArray("t", ["60\tsixty", "61\tmore"]), "copy in");
    $out = $c->pgsqlCopyToArray("t");
    that(in_array("60\tsixty\n", $out, true), $out);
    $c->rollBack();
});
