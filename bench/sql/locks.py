"""Writes a psql script that prints the relation locks of a statement at its twelfth execution.

Arguments: the pgbench script, the schema, the plan_cache_mode, the number of the first new session.
"""
import re
import sys

script, schema, mode, first = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
lines = open(script + ".sql").read().split("\n")
lookups = [number for number, line in enumerate(lines) if line.endswith("\\gset")]
lookup = lines[lookups[0]] if lookups else ""
body = "\n".join(lines[lookups[0] + 1:] if lookups else lines).strip().rstrip(";")
names = []


def parameter(match):
    names.append(match.group(1))
    return f"${len(names)}"


body = re.sub(r"(?<!:):([a-z_]+)", parameter, body)
arguments = ", ".join(f":'{name}'" for name in names)
print(f"set search_path = {schema}, public; set plan_cache_mode = {mode}; set synchronous_commit = off;")
print(f"\\o /dev/null\nprepare s as {body};")
for execution in range(12):
    if lookup:
        print(f"\\set n {first + execution if 'bench_new' in lookup else execution + 1}")
        print(f"\\set source {schema}{first + execution}\n{lookup}")
    if execution == 11:
        print("begin;")
    print(f"execute s ({arguments});" if names else "execute s;")
print("""\\o
select count(*) || ' locks, ' || count(*) filter (where not fastpath) || ' not in the fast path' from pg_locks
  where pid = pg_backend_pid() and locktype = 'relation' and relation >= 16384;
select generic_plans || ' generic plans, ' || custom_plans || ' custom plans' from pg_prepared_statements;
rollback;""")
