"""Functions that a query may call, per dialect: they compute, and read nothing but their arguments. All else is refused.

Left out on purpose, though they compute: what makes much of little (repeat, lpad, rpad, zeroblob, randomblob, space), and what
waits (pg_sleep). generate_series and range are in: the row and time limits hold them.
"""

from myna.apps.sql.database import Dialect

_COMMON = """
abs avg ceil ceiling coalesce count degrees exp floor ln log log10 lower ltrim max min mod nullif pi pow power radians round
rtrim sign sqrt sum sin cos tan asin acos atan atan2 trim trunc upper replace length substr substring
row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value
cast case current_date current_time current_timestamp
"""

_SQLITE = """
char date datetime time julianday strftime unixepoch timediff format printf glob like hex ifnull iif instr group_concat total
likelihood likely unlikely quote random soundex typeof unicode unhex cosh sinh tanh acosh asinh atanh log2 subtype
json json_array json_array_length json_each json_tree json_extract json_object json_patch json_insert json_replace json_set
json_remove json_quote json_type json_valid json_group_array json_group_object -> ->>
match bm25 highlight snippet last_insert_rowid changes total_changes sqlite_version regexp
"""

_BOTH_OTHERS = """
bool_and bool_or stddev stddev_pop stddev_samp variance var_pop var_samp corr covar_pop covar_samp regr_slope regr_intercept
regr_r2 string_agg array_agg concat concat_ws left right position strpos starts_with reverse split_part initcap ascii chr md5
char_length character_length octet_length bit_length translate overlay greatest least date_part date_trunc extract age now
to_timestamp make_date make_time make_timestamp regexp_replace regexp_matches regexp_split_to_array unnest generate_series
array_length cardinality array_position array_to_string string_to_array cbrt gcd lcm random percentile_cont percentile_disc mode
any_value every factorial isfinite justify_days to_json row_to_json json_array_length json_typeof bit_and bit_or any all exists
grouping bit_count
"""

_POSTGRES = """
to_char to_date to_number btrim div width_bucket regexp_match regexp_like regexp_count regexp_substr regexp_instr
regexp_split_to_table localtime localtimestamp clock_timestamp statement_timestamp make_interval justify_hours justify_interval
json_agg jsonb_agg json_object_agg jsonb_object_agg json_build_object jsonb_build_object json_build_array jsonb_build_array
to_jsonb json_extract_path json_extract_path_text jsonb_extract_path jsonb_extract_path_text json_each json_each_text jsonb_each
jsonb_each_text json_array_elements json_array_elements_text jsonb_array_elements jsonb_array_elements_text json_object_keys
jsonb_object_keys jsonb_array_length jsonb_typeof array_append array_prepend array_cat array_remove array_replace array_upper
array_lower array_dims array_ndims isempty lower_inf upper_inf to_tsvector to_tsquery plainto_tsquery websearch_to_tsquery
ts_rank ts_headline numnode similarity word_similarity levenshtein soundex metaphone unaccent date_bin scale min_scale trim_scale
num_nulls num_nonnulls pg_typeof regr_count regr_avgx regr_avgy quote_literal quote_ident encode decode cot sinh cosh tanh
"""

_DUCKDB = """
arg_max arg_min argmax argmin max_by min_by approx_count_distinct approx_quantile count_if countif sum_if first last list listagg
group_concat median quantile quantile_cont quantile_disc mad skewness kurtosis entropy histogram product fsum sumkahan kahan_sum
favg geomean bitstring_agg contains prefix suffix ends_with instr len lcase ucase strip_accents strftime strptime try_strptime
dayname monthname day dayofmonth dayofweek dayofyear hour minute second month quarter year week weekday weekofyear yearweek isodow
isoyear century decade epoch epoch_ms epoch_us last_day date_add date_sub date_diff datediff datepart datesub datetrunc
date_part today current_localtimestamp get_current_time get_current_timestamp to_days to_hours to_minutes to_months to_seconds
to_weeks to_years list_aggregate list_aggr list_avg list_sum list_min list_max list_count list_concat list_contains list_distinct
list_element list_extract list_filter list_transform list_position list_reverse list_reverse_sort list_slice list_sort list_unique
list_value list_zip array_contains array_distinct array_sort array_slice array_extract flatten range struct_extract struct_pack map
map_keys map_values map_extract map_entries element_at cardinality json_extract json_extract_string json_keys json_array json_object
json_type json_valid json_structure json_group_array json_group_object json_quote regexp_extract regexp_extract_all
regexp_full_match string_split str_split string_split_regex split levenshtein editdist3 damerau_levenshtein jaccard jaro_similarity
jaro_winkler_similarity hamming mismatches ifnull if nvl typeof even gamma lgamma log2 xor nextafter isnan isinf fdiv fmod divide
multiply add subtract hash sha256 hex unhex ord unicode printf format bar row struct_insert equi_width_bins date make_timestamp_ms
try_cast columns
"""

_NAMES = {
    "sqlite": _COMMON + _SQLITE,
    "duckdb": _COMMON + _BOTH_OTHERS + _DUCKDB,
    "postgres": _COMMON + _BOTH_OTHERS + _POSTGRES,
}


def allowed(dialect: Dialect) -> frozenset[str]:
    """In lower case."""
    return frozenset(_NAMES[dialect].split())
